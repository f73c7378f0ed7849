-- Reads jobs, newest first, and forgets those whose records have expired.
--
-- KEYS     see jobs.lua; only the first one
-- ARGV     place to begin at, jobs at most, lines of each log at most, and the fields
-- Reply    {how many were looked at, how many of them are there, {values of the fields, lines} of each}

local ids = redis.call('ZREVRANGE', KEYS[1], ARGV[1], tonumber(ARGV[1]) + tonumber(ARGV[2]) - 1)
local found = {}
local gone = 0
for _, id in ipairs(ids) do
  local job, log = KEYS[1] .. ':job:' .. id, KEYS[1] .. ':log:' .. id
  if settled_state(job, log) then
    found[#found + 1] = {redis.call('HMGET', job, unpack(ARGV, 4)), redis.call('LRANGE', log, -tonumber(ARGV[3]), -1)}
  else
    redis.call('ZREM', KEYS[1], id)
    gone = gone + 1
  end
end
return {#ids, #ids - gone, found}
