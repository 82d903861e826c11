-- Rates: the arithmetic of limits/gcra.ts, in whole numbers below 2^53, which a double holds exactly.
-- A bucket is text, 'taken at room speed': what was taken at that time, under a rule of those figures. It lives until
-- nothing is taken any more. The index of a rule has the names of its buckets, by the time at which each is empty.
-- A bucket of the same form has what was put back of it lately although it had flowed off.
-- A mark says what became of a call, so that one that is repeated takes effect once.

-- So many empty buckets leave the index for each new one.
local swept = 4
-- ms for which a bucket stays after it is empty.
local slack = 1000

-- What is taken of a bucket now. Where the rule has changed, the same share of its room.
local function level(key, now, room, speed)
  local text = redis.call('GET', key)
  if not text then return { key = key, taken = 0, is_new = true } end
  local taken, at, old_room, old_speed = string.match(text, '^(%d+) (%d+) (%d+) (%d+)$')
  taken, at, old_room, old_speed = tonumber(taken), tonumber(at), tonumber(old_room), tonumber(old_speed)
  -- A clock that was set back: nothing flows off until now, and from now on as usual.
  taken = math.max(0, taken - math.max(0, now - at) * old_speed)
  local has_changed = old_room ~= room or old_speed ~= speed
  if has_changed then taken = math.ceil(taken / old_room * room) end
  return { key = key, taken = taken, is_stale = has_changed or at > now }
end

-- The i-th bucket of a call: keys from `first` on are pairs of bucket and index, args from `base` on are triples of
-- room, speed and steps.
local function bucket_of(keys, args, first, base, i, now)
  local at = base + 3 * (i - 1)
  local room, speed = tonumber(args[at]), tonumber(args[at + 1])
  local bucket = level(keys[first + 2 * (i - 1)], now, room, speed)
  bucket.index, bucket.room, bucket.speed, bucket.steps = keys[first + 2 * i - 1], room, speed, tonumber(args[at + 2])
  return bucket
end

local function write(bucket, now)
  local key, index, taken = bucket.key, bucket.index, bucket.taken
  if taken <= 0 then
    if not bucket.is_new then
      redis.call('DEL', key)
      redis.call('ZREM', index, key)
    end
    return
  end
  local left = math.ceil(taken / bucket.speed)
  redis.call(
    'SET', key, int(taken) .. ' ' .. int(now) .. ' ' .. int(bucket.room) .. ' ' .. int(bucket.speed),
    'PX', int(left + slack)
  )
  if bucket.is_new then
    local empty = redis.call('ZRANGEBYSCORE', index, '-inf', int(now), 'LIMIT', 0, swept)
    if #empty > 0 then redis.call('ZREM', index, unpack(empty)) end
  end
  redis.call('ZADD', index, int(now + left), key)
  redis.call('PEXPIRE', index, int(math.ceil(2 * bucket.room / bucket.speed) + slack))
end

-- The i-th correction of a call: from `first` on are keys of bucket, index and what was put back lately, from `base` on
-- room, speed, speed at which what was put back is forgotten, unused steps, and how many were taken when.
local function correction_of(keys, args, first, base, i, now)
  local k, a = first + 3 * (i - 1), base + 6 * (i - 1)
  local room, speed = tonumber(args[a]), tonumber(args[a + 1])
  local bucket = level(keys[k], now, room, speed)
  bucket.index, bucket.room, bucket.speed, bucket.lately = keys[k + 1], room, speed, keys[k + 2]
  bucket.back_speed, bucket.unused = tonumber(args[a + 2]), tonumber(args[a + 3])
  bucket.steps, bucket.at = tonumber(args[a + 4]), tonumber(args[a + 5])
  return bucket
end

-- Steps that can be put back although they have flowed off, of so many; they count from now on.
local function put_back(bucket, steps, now)
  if steps == 0 then return 0 end
  local lately = level(bucket.lately, now, bucket.room, bucket.back_speed)
  local more = math.min(steps, bucket.room - lately.taken)
  if more <= 0 then return 0 end
  local all = lately.taken + more
  redis.call(
    'SET', bucket.lately, int(all) .. ' ' .. int(now) .. ' ' .. int(bucket.room) .. ' ' .. int(bucket.back_speed),
    'PX', int(math.ceil(all / bucket.back_speed) + slack)
  )
  return more
end

-- As limits/gcra.ts says it: what is beyond the room is paid off later, but for one more burst at most; what had flowed
-- off already is put back within bounds.
local function correct(bucket, now)
  local unused = bucket.unused
  if unused < 0 then
    bucket.taken = math.min(2 * bucket.room, bucket.taken - unused)
  else
    local elapsed = math.max(0, now - bucket.at)
    local own = math.min(unused, math.max(0, bucket.steps - elapsed * (bucket.speed + bucket.back_speed)))
    local left = math.max(0, bucket.taken - own)
    bucket.taken = left - put_back(bucket, math.min(unused - own, left), now)
  end
  write(bucket, now)
end

local function wait_of(bucket)
  local taken, steps, room, speed = bucket.taken, bucket.steps, bucket.room, bucket.speed
  if steps > room then return math.max(1, math.ceil(taken / speed)) end
  return math.max(0, math.ceil((taken - (room - steps)) / speed))
end

-- Whether the first is worse than the second: never beats later, and later beats sooner.
local function is_worse(a, b)
  local a_never, b_never = a.steps > a.room, b.steps > b.room
  if a_never == b_never then return a.wait > b.wait end
  return a_never
end

-- The buckets of a take: groups of them, of which the first always counts, and one of the others; then those to give back.
local function parse(keys, args, now)
  local backs, count = tonumber(args[2]), tonumber(args[3])
  local base, groups, i = 4 + count, {}, 0
  for g = 1, count do
    local group = { worst = false }
    for n = 1, tonumber(args[3 + g]) do
      i = i + 1
      local bucket = bucket_of(keys, args, 2, base, i, now)
      bucket.wait = wait_of(bucket)
      group[n] = bucket
      if bucket.wait > 0 and (not group.worst or is_worse(bucket, group.worst)) then group.worst = bucket end
    end
    groups[g] = group
  end
  local returned = {}
  for n = 1, backs do returned[n] = correction_of(keys, args, 2 + 2 * i, base + 3 * i, n, now) end
  return groups, returned
end

-- Takes from all buckets of the first group and of the first other group that has room, or from none.
-- keys: mark, then bucket and index of each, then those of corrections
-- args: ms for the mark, how many buckets at the end are given back, how many groups, the size of each, then room, speed
-- and steps of each bucket, then the figures of corrections
-- -> 'T' taken, 'R' refused or 'C' cancelled before; the number of the other group that was chosen, or that has room
-- first (0: there is none); the time; then for each bucket of these two groups: what was taken before, ms until there is room
function fn.rates_take(keys, args)
  local known = redis.call('GET', keys[1])
  if known then return known end
  local now = now_ms()
  local groups, returned = parse(keys, args, now)
  local chosen
  for g = 2, #groups do
    local worst = groups[g].worst
    if not worst then
      chosen = g
      break
    end
    if not chosen or is_worse(groups[chosen].worst, worst) then chosen = g end
  end
  local used = { groups[1], chosen and groups[chosen] or {} }
  local is_taken = not used[1].worst and not used[2].worst
  local reply = { is_taken and 'T' or 'R', chosen and chosen - 1 or 0, int(now) }
  for _, group in ipairs(used) do
    for _, bucket in ipairs(group) do
      reply[#reply + 1] = int(bucket.taken)
      reply[#reply + 1] = int(bucket.wait)
      if is_taken then bucket.taken = bucket.taken + bucket.steps end
      -- A change of the rule or of the clock is noted even so: the wait was told by it.
      if is_taken or bucket.is_stale then write(bucket, now) end
    end
  end
  reply = table.concat(reply, ' ')
  if not is_taken then return reply end
  for _, bucket in ipairs(returned) do correct(bucket, now) end
  redis.call('SET', keys[1], reply, 'PX', args[1])
  return reply
end

-- Gives back whole what a call of rates_take with the same keys and args has taken a moment ago, or sees to it that it
-- will take nothing.
function fn.rates_cancel(keys, args)
  local known = redis.call('GET', keys[1])
  if known == 'C' then return 0 end
  redis.call('SET', keys[1], 'C', 'PX', args[1])
  if not known then return 0 end
  local now = now_ms()
  local chosen = tonumber(string.match(known, '^T (%d+)')) + 1
  local groups = parse(keys, args, now)
  for g, group in ipairs(groups) do
    if g == 1 or g == chosen then
      for _, bucket in ipairs(group) do
        bucket.taken = math.max(0, bucket.taken - bucket.steps)
        write(bucket, now)
      end
    end
  end
  return 1
end
flags.rates_cancel = { 'allow-oom' }

-- Corrects buckets to what was used.
-- keys: mark, then those of corrections; args: ms for the mark, then their figures
function fn.rates_correct(keys, args)
  if redis.call('EXISTS', keys[1]) == 1 then return 0 end
  local now = now_ms()
  local buckets = {}
  for i = 1, (#keys - 1) / 3 do buckets[i] = correction_of(keys, args, 2, 2, i, now) end
  redis.call('SET', keys[1], '1', 'PX', args[1])
  for _, bucket in ipairs(buckets) do correct(bucket, now) end
  return 1
end
flags.rates_correct = { 'allow-oom' }

-- keys: buckets; args: room and speed of each -> what is taken of each
function fn.rates_look(keys, args)
  local now, reply = now_ms(), {}
  for i, key in ipairs(keys) do
    reply[i] = int(level(key, now, tonumber(args[2 * i - 1]), tonumber(args[2 * i])).taken)
  end
  return reply
end
flags.rates_look = { 'no-writes' }

-- keys: indexes of rules -> how many buckets of each have something taken
function fn.rates_count(keys)
  local now, reply = now_ms(), {}
  for i, key in ipairs(keys) do reply[i] = redis.call('ZCOUNT', key, '(' .. int(now), '+inf') end
  return reply
end
flags.rates_count = { 'no-writes' }

-- Counts one, unless there have been `max` within the window.
-- keys: sorted set of what was counted, by time; args: id, max, window in ms -> 1 or 0
function fn.rates_free(keys, args)
  local now = now_ms()
  redis.call('ZREMRANGEBYSCORE', keys[1], '-inf', int(now - tonumber(args[3])))
  if redis.call('ZSCORE', keys[1], args[1]) then return 1 end
  if redis.call('ZCARD', keys[1]) >= tonumber(args[2]) then return 0 end
  redis.call('ZADD', keys[1], int(now), args[1])
  redis.call('PEXPIRE', keys[1], args[3])
  return 1
end
