-- For tests: the time of the functions is that which was set last, by the caller's clock.
local set
local of_server = now_ms
now_ms = function() return set or of_server() end

-- Takes effect in this server only. args: ms since the epoch
function fn.test_clock(keys, args)
  set = tonumber(args[1])
  return 1
end
flags.test_clock = { 'allow-oom', 'no-writes' }
