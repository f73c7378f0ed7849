-- Deletes a fact with its passages, history and counts.
--
-- KEYS[1]  the fact's key
-- ARGV[1]  request: root, now, fact_id, callers, expected_version and created_at (ms; "" for any), number
-- Reply    {"deleted"} | {"missing"} | {"conflict", version}

local fact = read_live_fact(request.fact_id)
if not fact or given(fact.document) or not is_visible(fact, request.callers) then return {'missing'} end
-- Versions begin anew when a fact is deleted and its id stored again; times do not.
local is_another = given(request.created_at) and fact.created_at ~= request.created_at
if is_another or (given(request.expected_version) and fact.version ~= request.expected_version) then
  return {'conflict', fact.version}
end
remove_fact(request.fact_id, fact)
return {'deleted'}
