-- Reads one job.
--
-- KEYS     see jobs.lua
-- ARGV     lines of its log at most, and the fields
-- Reply    {values of the fields, lines}, or false when there is no such job

if not settled_state(KEYS[2], KEYS[3]) then return false end
return {redis.call('HMGET', KEYS[2], unpack(ARGV, 2)), redis.call('LRANGE', KEYS[3], -tonumber(ARGV[1]), -1)}
