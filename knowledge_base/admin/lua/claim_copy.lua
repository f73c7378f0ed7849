-- Claims, and holds, the right to copy into a namespace that does not exist yet, or that was half copied before.
--
-- KEYS[1]  the hash of the copy
-- KEYS[2]  the hash of the target's live generation
-- ARGV     the source, the token of whoever copies, its lease (ms), "1" when the copy is found to be like the source
-- Reply    "ok" | "verified" when it was found to be like the source: nothing may be taken from there any more
--          | "exists" | "other" when it was begun from another source | "busy" when somebody else is at it

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local copy = redis.call('HMGET', KEYS[1], 'source', 'owner', 'lease')
if not copy[1] and redis.call('EXISTS', KEYS[2]) == 1 then return 'exists' end
if copy[1] and copy[1] ~= ARGV[1] then return 'other' end
if copy[2] and copy[2] ~= ARGV[2] and tonumber(copy[3]) > now then return 'busy' end
redis.call('HSET', KEYS[1], 'source', ARGV[1], 'owner', ARGV[2], 'lease', string.format('%.0f', now + tonumber(ARGV[3])))
if ARGV[4] == '1' then redis.call('HSET', KEYS[1], 'verified', '1') end
if redis.call('HEXISTS', KEYS[1], 'verified') == 1 then return 'verified' end
return 'ok'
