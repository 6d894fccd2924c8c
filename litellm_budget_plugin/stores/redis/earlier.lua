-- Some rows of version 1 that are still to be brought over, out of MessagePack.
--
-- ARGV[1]  {kind, after, how many about}; kind is 1a (accounts), 1h (holds) or w (totals); after is a cursor or a name
-- Answer   {1 if there are more, after, row, ...}. Rows: {subject, {account, ...}}; {id, hold}; {subject, field, sums}

local kind, after, most = unpack(args)
local reply = {0, after}

-- A table for an answer, which ends at the first nil.
local function whole(row, places)
    for place = 1, places do
        row[place] = row[place] or false
    end
    return row
end

local function totals()
    local names = call('ZRANGEBYLEX', ROOT .. ':w', after == '' and '-' or '(' .. after, '+', 'LIMIT', 0, most)
    for _, name in ipairs(names) do
        local found = call('HGETALL', ROOT .. ':u:' .. name)
        for at = 1, #found, 2 do
            if string.match(found[at], '^-?%d+:') then
                reply[#reply + 1] = {name, found[at], cmsgpack.unpack(found[at + 1])}
            end
            if #reply > most then
                -- What has been brought over of this subject is not seen the next time.
                reply[1] = 1
                return
            end
        end
        reply[1], reply[2] = #names == most and 1 or 0, name
    end
end

local function rows()
    local cursor, found = unpack(call('HSCAN', ROOT .. ':' .. kind, after == '' and 0 or after, 'COUNT', most))
    for at = 1, #found, 2 do
        local row = cmsgpack.unpack(found[at + 1])
        if kind == '1a' then
            for _, account in ipairs(row) do
                local models = {}
                for model, amount in pairs(account[13]) do
                    models[#models + 1], models[#models + 2] = model, amount
                end
                account[13] = models
                whole(account, 21)
            end
        else
            whole(row, 12)
        end
        reply[#reply + 1] = {found[at], row}
    end
    reply[1], reply[2] = cursor == '0' and 0 or 1, cursor
end

if kind == 'w' then
    totals()
else
    rows()
end
return reply
