-- Sends one heartbeat after the other, each as the next agent of the file in BENCH_AGENTS.
local requests, turn = {}, 0

function init()
  local body = '{"status":"active","agent_version":"0.1.0","capabilities":["read","patch"]}'
  for line in io.lines(os.getenv("BENCH_AGENTS")) do
    local id, secret = line:match("(%S+) (%S+)")
    local headers = { ["X-Agent-Secret"] = secret, ["Content-Type"] = "application/json" }
    requests[#requests + 1] =
      wrk.format("POST", "/api/v1/agents/" .. id .. "/heartbeat", headers, body)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

dofile(os.getenv("BENCH_REPORT"))
