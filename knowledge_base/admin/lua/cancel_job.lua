-- Asks for a job to be cancelled; its process sees it with its next heartbeat.
--
-- KEYS     see jobs.lua
-- Reply    its state before, or false when there is no such job

local state = settled_state(KEYS[2], KEYS[3])
if is_live(state) and redis.call('HGET', KEYS[2], 'cancelling') ~= '1' then
  redis.call('HSET', KEYS[2], 'cancelling', '1')
  write_log(KEYS[3], 'cancellation asked for')
end
return state
