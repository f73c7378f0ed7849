-- Takes a document away: nobody finds it any more; its parts are removed later, in batches.
--
-- KEYS[1]  the document's key
-- ARGV[1]  request: root, now, number, document_id, callers, expected_version and created_at (ms; "" for any),
--          prefix (of what its revision is called among those to be removed)
-- Reply    {"deleted", revision} | {"missing"} | {"conflict", version}

local id = request.document_id
local old = read_live_fact(id)
if not old or not given(old.document) or not is_visible(old, request.callers) then return {'missing'} end
-- Versions begin anew when a document is deleted and its id stored again; times do not.
local is_another = given(request.created_at) and old.created_at ~= request.created_at
if is_another or (given(request.expected_version) and old.version ~= request.expected_version) then
  return {'conflict', old.version}
end
redis.call('ZREM', root .. 'documents', id)
note_change(id)
forget_attempts(id)
redis.call('ZREM', root .. 'pending', id)
redis.call('ZADD', root .. 'leftovers', request.now, request.prefix .. old.revision)
redis.call('HINCRBY', root .. 'counters', 'passages', string.format('%d', -tonumber(old.passages)))
redis.call('DEL', KEYS[1])
return {'deleted', old.revision}
