-- Shared by the scripts beside it: counts answers by status and prints one line of JSON at the end.
local threads = {}
statuses = ""
local counts = {}

function setup(thread)
  threads[#threads + 1] = thread
end

function response(status)
  counts[status] = (counts[status] or 0) + 1
  local parts = {}
  for code, count in pairs(counts) do
    parts[#parts + 1] = '"' .. code .. '":' .. count
  end
  statuses = table.concat(parts, ",")
end

function done(summary, latency)
  io.write(string.format(
    '\nJSON {"requests":%d,"seconds":%f,"p50_ms":%f,"p99_ms":%f,"socket_errors":%d,"statuses":{%s}}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    threads[1]:get("statuses")))
end
