-- The login guard: failures of accounts, addresses and pairs of both, all in one tag, so that one call sees all of them.
-- A table has three keys: a hash, key -> { f = failures, o = when the next attempt is allowed, p = { attempt = end of its
-- lease } } as JSON; and two sorted sets of its keys by `o`: `light` with free failures left, `heavy` without. They do not
-- displace each other. The number of a table is the place of its first key.
-- A counter: { t = table, k = key, scope, strict = whether attempts on their way count as failed, factor = how many times
-- the free failures, max = how many keys each set may have (0 any number) }.
-- A rule: free, first, max, quiet, in ms; see BackoffRule.

local function wait_after(failures, rule, factor)
  local paid = failures - rule.free * factor
  if paid < 0 then return 0 end
  return math.floor(math.min(rule.first * 2 ^ paid, rule.max))
end

local function find(keys, counter, rule, now)
  local text = redis.call('HGET', keys[counter.t], counter.k)
  if not text then return nil end
  local tally = cjson.decode(text)
  if now - tally.o >= rule.quiet then return nil end
  for attempt, lease in pairs(tally.p) do
    if lease <= now then tally.p[attempt] = nil end
  end
  return tally
end

local function forget(keys, t, key)
  redis.call('HDEL', keys[t], key)
  redis.call('ZREM', keys[t + 1], key)
  redis.call('ZREM', keys[t + 2], key)
end

local function store(keys, counter, tally, rule, now)
  if tally.f == 0 and next(tally.p) == nil then return forget(keys, counter.t, counter.k) end
  local hash, light, heavy = keys[counter.t], keys[counter.t + 1], keys[counter.t + 2]
  local to, from = light, heavy
  if tally.f >= rule.free * counter.factor then to, from = heavy, light end
  redis.call('HSET', hash, counter.k, cjson.encode(tally))
  redis.call('ZREM', from, counter.k)
  redis.call('ZADD', to, int(tally.o), counter.k)
  for _, set in ipairs({ light, heavy }) do
    for _, stale in ipairs(redis.call('ZRANGEBYSCORE', set, '-inf', int(now - rule.quiet), 'LIMIT', 0, 8)) do
      forget(keys, counter.t, stale)
    end
  end
  for _ = 1, 8 do
    if counter.max == 0 or redis.call('ZCARD', to) <= counter.max then break end
    forget(keys, counter.t, redis.call('ZRANGE', to, 0, 0)[1])
  end
  for _, key in ipairs({ hash, light, heavy }) do redis.call('PEXPIRE', key, math.ceil(rule.quiet + rule.max)) end
end

local function wait_of(tally, counter, rule, now)
  if not tally then return 0 end
  if now < tally.o then return tally.o - now end
  local pending = 0
  for _ in pairs(tally.p) do pending = pending + 1 end
  if pending == 0 then return 0 end
  local counted = counter.strict and tally.f + pending or tally.f
  -- The outcome of another attempt is pending.
  return counted >= rule.free * counter.factor and 1000 or 0
end

-- Whether an attempt may begin now; and where `begin` is true, begins it.
-- keys: known addresses of the user, done, tables
-- args: { at = time or nil, id, begin, rule, lease, address, keep = how long an address is known, pair = counter, others =
--   counters } -> ms to wait, whether the address is known
function fn.guard_start(keys, args)
  local ask = cjson.decode(args[1])
  local now = ask.at or now_ms()
  local used = tonumber(redis.call('ZSCORE', keys[1], ask.address) or '')
  local is_known = used ~= nil and now - used < ask.keep
  local counters = is_known and { ask.pair } or ask.others
  local wait, tallies = 0, {}
  for at, counter in ipairs(counters) do
    local tally = find(keys, counter, ask.rule, now)
    -- Begun before, by this very call.
    if tally and tally.p[ask.id] then return { 0, is_known and 1 or 0 } end
    tallies[at] = tally or { f = 0, o = now, p = {} }
    wait = math.max(wait, wait_of(tally, counter, ask.rule, now))
  end
  if wait == 0 and ask.begin then
    for at, counter in ipairs(counters) do
      tallies[at].p[ask.id] = now + ask.lease
      store(keys, counter, tallies[at], ask.rule, now)
    end
  end
  return { math.ceil(wait), is_known and 1 or 0 }
end

-- Ends an attempt: 'failed', 'succeeded' or 'dropped'.
-- keys: as guard_start; args: { at, id, outcome, rule, counters = those it counts for, address = one that is known from now
-- on or nil, keep } -> what waits now, as JSON: { { scope, failures, escalation, waitMs }, ... }
function fn.guard_end(keys, args)
  local ask = cjson.decode(args[1])
  local now = ask.at or now_ms()
  local done = redis.call('GET', keys[2])
  if done then return done end
  local escalated = {}
  for _, counter in ipairs(ask.counters) do
    local tally = find(keys, counter, ask.rule, now)
    if ask.outcome == 'failed' then
      tally = tally or { f = 0, o = now, p = {} }
      tally.p[ask.id] = nil
      local before = wait_after(tally.f, ask.rule, counter.factor)
      tally.f = tally.f + 1
      local wait = wait_after(tally.f, ask.rule, counter.factor)
      tally.o = now + wait
      store(keys, counter, tally, ask.rule, now)
      local escalation = before == 0 and 'begun' or (wait == ask.rule.max and before < wait and 'longest')
      if wait > 0 and escalation then
        table.insert(escalated, { scope = counter.scope, failures = tally.f, escalation = escalation, waitMs = wait })
      end
    elseif tally then
      tally.p[ask.id] = nil
      if ask.outcome == 'succeeded' and counter.scope ~= 'address' then tally.f, tally.o = 0, now end
      store(keys, counter, tally, ask.rule, now)
    end
  end
  if ask.address then
    redis.call('ZADD', keys[1], int(now), ask.address)
    redis.call('ZREMRANGEBYRANK', keys[1], 0, -9)
    redis.call('PEXPIRE', keys[1], math.ceil(ask.keep))
  end
  local reply = #escalated == 0 and '[]' or cjson.encode(escalated)
  redis.call('SET', keys[2], reply, 'PX', 120000)
  return reply
end

-- Forgets the failures of an account.
-- keys: as guard_start; args: { at, rule, users = names it is counted under, accounts = their counters, pairs = table } -> 1 if there were any
function fn.guard_unlock(keys, args)
  local ask = cjson.decode(args[1])
  local now = ask.at or now_ms()
  local done = redis.call('GET', keys[2])
  if done then return tonumber(done) end
  local counters = ask.accounts
  for _, address in ipairs(redis.call('ZRANGE', keys[1], 0, 15)) do
    for _, user in ipairs(ask.users) do
      table.insert(counters, { t = ask.pairs, k = user .. ' ' .. address })
    end
  end
  local found = 0
  for _, counter in ipairs(counters) do
    local tally = find(keys, counter, ask.rule, now)
    if tally and tally.f > 0 then found = 1 end
    forget(keys, counter.t, counter.k)
  end
  redis.call('SET', keys[2], found, 'PX', 120000)
  return found
end

-- What has to wait. keys: as guard_start; args: { at, limit, rule, tables }
-- -> for each: table, key, failures, ms to wait
function fn.guard_locked(keys, args)
  local ask = cjson.decode(args[1])
  local now = ask.at or now_ms()
  local found = {}
  for _, t in ipairs(ask.tables) do
    for _, key in ipairs(redis.call('ZRANGEBYSCORE', keys[t + 2], '(' .. int(now), '+inf', 'LIMIT', 0, ask.limit)) do
      local tally = find(keys, { t = t, k = key }, ask.rule, now)
      if tally then table.insert(found, { t, key, tally.f, math.ceil(tally.o - now) }) end
    end
  end
  return found
end
flags.guard_locked = { 'no-writes' }
