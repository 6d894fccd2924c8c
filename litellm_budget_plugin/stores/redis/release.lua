-- Release: core/settling.py.
-- needs: closing
--
-- KEYS[1]  the project's root
-- ARGV[1]  JSON: [hold, now]
-- Reply    1

local id, now = unpack(cjson.decode(ARGV[1]))

work.begin(now)
holding.give_back(id)
holding.expire_few()
work.save()
return 1
