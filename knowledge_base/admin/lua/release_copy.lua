-- Ends a copy: as finished, or as one that somebody else may go on with.
--
-- KEYS[1]  the hash of the copy
-- KEYS[2]  the set of what was copied
-- ARGV     the token of whoever copies, "1" when it is finished
-- Reply    1, or 0 when somebody else has taken it over

if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
if ARGV[2] == '1' then
  redis.call('UNLINK', KEYS[1], KEYS[2])
else
  redis.call('HSET', KEYS[1], 'lease', '0')
end
return 1
