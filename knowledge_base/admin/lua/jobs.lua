-- Functions that the scripts of jobs share. Time is the server's, so that all processes agree on it.
--
-- KEYS[1]  the sorted set of all jobs, by the time (ms) they were started
-- KEYS[2]  the hash of one job, where the script is about one
-- KEYS[3]  the list of its log lines

local KEPT_LINES = 200

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local function is_live(state)
  return state == 'queued' or state == 'running'
end

local function number(value)
  return string.format('%.0f', value)
end

local function write_log(key, line)
  redis.call('RPUSH', key, number(now) .. ' ' .. line)
  redis.call('LTRIM', key, -KEPT_LINES, -1)
end

local function keep(job, log, milliseconds)
  redis.call('PEXPIRE', job, milliseconds)
  redis.call('PEXPIRE', log, milliseconds)
end

-- Returns the state of a job. One whose process has not been heard of for longer than its lease is lost from now on,
-- for good: whoever sees that may start another one.
local function settled_state(job, log)
  local seen = redis.call('HMGET', job, 'state', 'lease', 'keep')
  if is_live(seen[1]) and tonumber(seen[2]) <= now then
    redis.call('HSET', job, 'state', 'lost', 'finished_at', number(now))
    write_log(log, 'lost: its process has not been heard of')
    keep(job, log, seen[3])
    return 'lost'
  end
  return seen[1]
end
