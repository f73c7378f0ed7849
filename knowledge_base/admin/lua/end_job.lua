-- Records how a job ended, unless it counts as ended already.
--
-- KEYS     see jobs.lua
-- ARGV     the owner's token, state, done, total, rate, result and error as JSON or "", and new lines of its log
-- Reply    the state that counts, or false when there is no such job of this owner

local state = settled_state(KEYS[2], KEYS[3])
if not state or redis.call('HGET', KEYS[2], 'owner') ~= ARGV[1] then return false end
if not is_live(state) then return state end
redis.call('HSET', KEYS[2], 'state', ARGV[2], 'finished_at', number(now), 'done', ARGV[3], 'total', ARGV[4],
  'rate', ARGV[5], 'result', ARGV[6], 'error', ARGV[7])
for i = 8, #ARGV do write_log(KEYS[3], ARGV[i]) end
keep(KEYS[2], KEYS[3], redis.call('HGET', KEYS[2], 'keep'))
return ARGV[2]
