-- For tests: the time that functions see is the one that was set last.
local given
local server_ms = now_ms
now_ms = function() return given or server_ms() end

-- args: ms since the epoch
function fn.test_time(_, args)
  given = tonumber(args[1])
  return 1
end
