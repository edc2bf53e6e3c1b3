-- Guesses passwords of accounts that do not exist; each guess is hashed like any other.
local turn = 0

function request()
  turn = turn + 1
  local body = '{"email":"nobody-' .. turn .. '@example.com","password":"not-this-one-either"}'
  return wrk.format("POST", "/api/v1/auth/login", { ["Content-Type"] = "application/json" }, body)
end

dofile(os.getenv("BENCH_REPORT"))
