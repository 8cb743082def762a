-- What wrk asks the broker for. Arguments: the API key, "token" or "consent", the
-- number of rows to choose from, and for "consent" the one provider to ask for, if it
-- shall always be the same. The ids are those of seed.go.

local key, what, count, provider
local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end

function init(args)
  key, what, count, provider = args[1], args[2], tonumber(args[3]), args[4]
  math.randomseed(os.time() + 1000 * number)
end

local function id(kind)
  local n = math.random(count)
  return string.format("%08x-0000-4000-%s-%012d", (n * 2654435761) % 4294967296, kind, n)
end

function request()
  if what == "token" then
    return wrk.format("GET", "/connections/" .. id("8000") .. "/token", { ["X-API-Key"] = key })
  end
  local body = string.format(
    '{"workspace_id":"bench","provider_id":"%s","return_url":"https://app.example.com/connected","scopes":["read","write"]}',
    provider or id("9000"))
  return wrk.format("POST", "/auth/consent-spec", { ["X-API-Key"] = key, ["Content-Type"] = "application/json" }, body)
end

function done(summary, latency)
  local e = summary.errors
  print(string.format('{"requests":%d,"microseconds":%d,"p99":%d,"refused":%d,"broken":%d}',
    summary.requests, summary.duration, latency:percentile(99), e.status, e.connect + e.read + e.write + e.timeout))
end
