-- Switches a namespace off: from now on no script changes it, and no process takes it for live.
--
-- KEYS[1]  the hash of the live generation
-- ARGV     what stands in the place of the generation's number from now on, the token of whoever does it, what for
-- Reply    "ok", "other" when it is off for something else that must end first, or "missing"
--
-- What is being dropped may be half gone: it can only be dropped.

local recorded = redis.call('HMGET', KEYS[1], 'number', 'off_for')
if not recorded[1] then return 'missing' end
if recorded[1] ~= ARGV[1] then
  redis.call('HSET', KEYS[1], 'number', ARGV[1], 'number_before', recorded[1])
elseif ARGV[3] ~= 'drop' and recorded[2] ~= ARGV[3] then
  return 'other'
end
redis.call('HSET', KEYS[1], 'off_by', ARGV[2], 'off_for', ARGV[3])
return 'ok'
