-- Records a job that begins to wait for its turn. The oldest records that have ended give way.
--
-- KEYS     see jobs.lua
-- ARGV     id, lease (ms), how long it is kept (ms), records at most, and fields with their values
-- Reply    1, or 0 when so many jobs are under way that there is no room

local most = tonumber(ARGV[4])
local place = 0
while redis.call('ZCARD', KEYS[1]) >= most do
  local id = redis.call('ZRANGE', KEYS[1], place, place)[1]
  if not id then return 0 end
  local job, log = KEYS[1] .. ':job:' .. id, KEYS[1] .. ':log:' .. id
  if is_live(settled_state(job, log)) then
    place = place + 1
  else
    redis.call('DEL', job, log)
    redis.call('ZREM', KEYS[1], id)
  end
end
-- In the order in which they came, also within a millisecond.
local newest = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
redis.call('ZADD', KEYS[1], math.max(now, (tonumber(newest[2]) or 0) + 1), ARGV[1])
redis.call('HSET', KEYS[2], 'id', ARGV[1], 'state', 'queued', 'created_at', number(now), 'keep', ARGV[3],
  'lease', number(now + tonumber(ARGV[2])), unpack(ARGV, 5))
write_log(KEYS[3], 'queued')
keep(KEYS[2], KEYS[3], ARGV[3])
return 1
