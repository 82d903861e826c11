-- Permits: a place in a scope is a member of a sorted set, with the end of its lease: those of a process that has died
-- come back by themselves. Never a counter.
-- Requests wait in lines, one for each scope, as entries: all requests of one user on one process that need the same.
-- A line is in the order of ranks (start-time fair queueing): an entry's rank is that of the last one granted, or the
-- last one of its user if that is greater, and one step more: so users take turns, wherever they wait. The clock of a
-- tag is the hash `turns`: v, the greatest rank granted; u:USER, the last rank of a user.
-- Whoever wants a place gets it where more are free than have a right to them before. An entry waits only in the lines of
-- scopes that have kept it out, so that it keeps nobody from what it could not use.

-- A process none of whose waiting requests has asked for so long, in ms, or for as long as a lease, is dead.
local silent_ms = 3000
-- So many entries of dead processes are removed at once.
local most_dropped = 16
local line_ms = 60000
local turns_ms = 3600000

-- Places that nobody holds.
local function free_in(set, max, now)
  redis.call('ZREMRANGEBYSCORE', set, '-inf', int(now))
  return max - redis.call('ZCARD', set)
end

local function is_dead(nodes, entry, lease_ms, now)
  local seen = redis.call('HGET', nodes, string.match(entry, '^[^:]+'))
  return not seen or tonumber(seen) < now - math.min(silent_ms, lease_ms)
end

-- How many entries have a right to a place before this one; '' stands for a request that does not wait yet.
local function ahead_in(line, entry)
  return entry ~= '' and redis.call('ZRANK', line, entry) or redis.call('ZCARD', line)
end

-- Whether a scope has a place for an entry, and how many are before it.
local function has_room(scope, entry, nodes, lease_ms, now)
  -- No cap.
  if scope.max < 0 then return true, 0 end
  local free = free_in(scope.set, scope.max, now)
  local ahead = ahead_in(scope.line, entry)
  if free > 0 and ahead >= free then
    local dropped = 0
    for _, other in ipairs(redis.call('ZRANGE', scope.line, 0, math.min(ahead, most_dropped) - 1)) do
      if is_dead(nodes, other, lease_ms, now) then dropped = dropped + redis.call('ZREM', scope.line, other) end
    end
    ahead = ahead - dropped
  end
  return free > ahead, ahead
end

local function hold(set, id, lease_ms, now)
  redis.call('ZADD', set, int(now + lease_ms), id)
  redis.call('PEXPIRE', set, int(2 * lease_ms))
end

-- The next rank of a user, in a tag.
local function next_rank(turns, user, step)
  local known = redis.call('HMGET', turns, 'v', 'u:' .. user)
  local now_at = tonumber(known[1] or '0')
  local rank = math.max(now_at, tonumber(known[2] or '0')) + step
  redis.call('HSET', turns, 'u:' .. user, int(rank))
  redis.call('PEXPIRE', turns, turns_ms)
  local size = redis.call('HLEN', turns)
  if size > 1000 and size % 500 == 0 then
    -- A rank that has been passed says nothing any more.
    local all = redis.call('HGETALL', turns)
    for i = 1, #all, 2 do
      if all[i] ~= 'v' and tonumber(all[i + 1]) <= now_at then redis.call('HDEL', turns, all[i]) end
    end
  end
  return rank
end

-- Takes a place in each of the first scopes and in the first of the others that has one, or none. An entry that gets
-- none waits in the lines of the scopes that had no place for it, or, if it is patient, of all.
-- keys: turns, nodes, then set and line of each scope
-- args: id of the permit, lease in ms, entry or '', process, user, rank of the entry (0: none yet), step, 1 if patient,
-- number of the scopes that are needed all, then the cap of each scope (-1: none)
-- -> 'T', number of the chosen one of the others (0: there are none), or 'R', rank, how many are before it, numbers of
-- the scopes that had no place
function fn.permits_acquire(keys, args)
  local now = now_ms()
  local turns, nodes = keys[1], keys[2]
  local id, lease_ms, entry, node, user = args[1], tonumber(args[2]), args[3], args[4], args[5]
  local rank, step, is_patient, needed = tonumber(args[6]), tonumber(args[7]), args[8] == '1', tonumber(args[9])
  local scopes, held = {}, false
  for i = 1, #args - 9 do
    scopes[i] = { set = keys[1 + 2 * i], line = keys[2 + 2 * i], max = tonumber(args[9 + i]) }
    scopes[i].is_held = scopes[i].max >= 0 and redis.call('ZSCORE', scopes[i].set, id) ~= false
    held = held or scopes[i].is_held
  end
  if entry ~= '' then
    redis.call('HSET', nodes, node, int(now))
    redis.call('PEXPIRE', nodes, line_ms)
  end

  local blocked, before, chosen = {}, 0, 0
  if held then
    -- The call is repeated.
    for i = needed + 1, #scopes do
      if scopes[i].is_held or (chosen == 0 and scopes[i].max < 0) then chosen = i - needed end
    end
  else
    for i = 1, needed do
      local is_free, ahead = has_room(scopes[i], entry, nodes, lease_ms, now)
      if not is_free then
        blocked[#blocked + 1] = i
        before = math.max(before, ahead)
        scopes[i].is_full = true
      end
    end
    for i = needed + 1, #scopes do
      local is_free, ahead = has_room(scopes[i], entry, nodes, lease_ms, now)
      if is_free then
        chosen = i - needed
        break
      end
      before = math.max(before, ahead)
    end
    if chosen == 0 then
      for i = needed + 1, #scopes do
        blocked[#blocked + 1] = i
        scopes[i].is_full = true
      end
    end
  end

  if #blocked > 0 then
    if entry == '' then return table.concat({ 'R', 0, before, unpack(blocked) }, ' ') end
    if rank == 0 then rank = next_rank(turns, user, step) end
    for _, scope in ipairs(scopes) do
      if scope.max >= 0 then
        if scope.is_full or is_patient then
          redis.call('ZADD', scope.line, int(rank), entry)
          redis.call('PEXPIRE', scope.line, line_ms)
        else
          redis.call('ZREM', scope.line, entry)
        end
      end
    end
    return table.concat({ 'R', int(rank), before, unpack(blocked) }, ' ')
  end

  for i, scope in ipairs(scopes) do
    if scope.max >= 0 then
      if not held and (i <= needed or i == needed + chosen) then hold(scope.set, id, lease_ms, now) end
      if entry ~= '' then redis.call('ZREM', scope.line, entry) end
    end
  end
  if rank > tonumber(redis.call('HGET', turns, 'v') or '0') then
    redis.call('HSET', turns, 'v', int(rank))
    redis.call('PEXPIRE', turns, turns_ms)
  end
  return 'T ' .. chosen
end

-- Tells the processes whose requests wait for a scope that a place may be free.
local function wake(line, key, value)
  if redis.call('EXISTS', line) == 1 then redis.call('SET', key, value, 'PX', line_ms) end
end

-- keys: set, line and wake of each scope; args: id of the permit
function fn.permits_release(keys, args)
  for i = 1, #keys, 3 do
    if redis.call('ZREM', keys[i], args[1]) == 1 then wake(keys[i + 1], keys[i + 2], args[1]) end
  end
  return 1
end
flags.permits_release = { 'allow-oom' }

-- Takes an entry out of lines. keys: line and wake of each scope; args: entry
function fn.permits_leave(keys, args)
  for i = 1, #keys, 2 do
    if redis.call('ZREM', keys[i], args[1]) == 1 then wake(keys[i], keys[i + 1], args[1]) end
  end
  return 1
end
flags.permits_leave = { 'allow-oom' }

-- Renews leases. One that is gone comes back, even beyond the cap: its request is running.
-- keys: set of each; args: lease in ms, then the id of each
function fn.permits_renew(keys, args)
  local now = now_ms()
  for i, set in ipairs(keys) do hold(set, args[1 + i], tonumber(args[1]), now) end
  return 1
end
flags.permits_renew = { 'allow-oom' }

-- Moves a permit to another scope, if that has a place.
-- keys: nodes, set and line of the new scope, set, line and wake of the former one; args: id, lease in ms, cap of the new
-- one (-1: none), 1 if it had a place in the former one -> 1 or 0
function fn.permits_move(keys, args)
  local now = now_ms()
  local id, lease_ms, max = args[1], tonumber(args[2]), tonumber(args[3])
  if max >= 0 and not redis.call('ZSCORE', keys[2], id) then
    if not has_room({ set = keys[2], line = keys[3], max = max }, '', keys[1], lease_ms, now) then return 0 end
    hold(keys[2], id, lease_ms, now)
  end
  if args[4] == '1' and redis.call('ZREM', keys[4], id) == 1 then wake(keys[5], keys[6], id) end
  return 1
end

-- keys: sets -> how many places are taken in each
function fn.permits_count(keys)
  local now, reply = now_ms(), {}
  for i, set in ipairs(keys) do reply[i] = redis.call('ZCOUNT', set, '(' .. int(now), '+inf') end
  return reply
end
flags.permits_count = { 'no-writes' }
