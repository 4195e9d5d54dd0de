-- For wrk: every request carries the next token of the file named after `--`, if one is; at the end, one line of figures.
local requests, last = {}, 0

function init(arguments)
  if not arguments[1] then
    requests[1] = wrk.format("GET")
    return
  end
  for token in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format("GET", nil, { ["Authorization"] = "Bearer " .. token })
  end
end

function request()
  last = last % #requests + 1
  return requests[last]
end

function done(summary, latency)
  local failed = summary.errors
  io.write(string.format("figures %d %d %d\n", summary.requests, summary.duration,
    failed.connect + failed.read + failed.write + failed.timeout + failed.status))
end
