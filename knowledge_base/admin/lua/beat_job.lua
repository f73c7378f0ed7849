-- The heartbeat of a job: renews its lease, tells how far it is, and learns whether it is to end.
--
-- KEYS     see jobs.lua
-- ARGV     the owner's token, lease (ms), "1" when it runs now, done, total, rate, and new lines of its log
-- Reply    {state, "1" when somebody wants it cancelled}; a state that is not live means that it is not the owner's

local state = settled_state(KEYS[2], KEYS[3])
if not state or redis.call('HGET', KEYS[2], 'owner') ~= ARGV[1] then return {'lost', '0'} end
if not is_live(state) then return {state, '0'} end
if ARGV[3] == '1' and state == 'queued' then
  state = 'running'
  redis.call('HSET', KEYS[2], 'started_at', number(now))
end
redis.call('HSET', KEYS[2], 'state', state, 'lease', number(now + tonumber(ARGV[2])),
  'done', ARGV[4], 'total', ARGV[5], 'rate', ARGV[6])
for i = 7, #ARGV do write_log(KEYS[3], ARGV[i]) end
keep(KEYS[2], KEYS[3], redis.call('HGET', KEYS[2], 'keep'))
return {state, redis.call('HGET', KEYS[2], 'cancelling') or '0'}
