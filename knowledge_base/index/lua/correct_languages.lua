-- Corrects how many sections of each language there are.
--
-- KEYS[1]  the hash from language to sections
-- ARGV     language and by how much, for each that is to be corrected

for at = 1, #ARGV, 2 do
  if redis.call('HINCRBY', KEYS[1], ARGV[at], ARGV[at + 1]) <= 0 then redis.call('HDEL', KEYS[1], ARGV[at]) end
end
