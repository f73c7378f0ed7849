-- Deletes a fact with its passages, history and counts.
--
-- KEYS[1]  the fact's key
-- ARGV[1]  request: root, now, fact_id, callers, expected_version ("" for any), number
-- Reply    {"deleted"} | {"missing"} | {"conflict", version}

local fact = read_live_fact(request.fact_id)
if not fact or given(fact.document) or not is_visible(fact, request.callers) then return {'missing'} end
if given(request.expected_version) and fact.version ~= request.expected_version then
  return {'conflict', fact.version}
end
remove_fact(request.fact_id, fact)
return {'deleted'}
