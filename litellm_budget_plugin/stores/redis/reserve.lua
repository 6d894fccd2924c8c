-- Reserve: core/reserving.py.
-- needs: closing
--
-- KEYS[1]  the project's root
-- ARGV[1]  JSON: [hold, now, subjects [[scope, id], ...], order of the subjects [place, ...], models, want [usd, calls, tokens],
--          lifetime, floor [...], at least or false, replaced hold or false, cheap, patient, label, rolls]
-- ARGV[2]  JSON: [default, ...]
-- Replies  1 (granted all of it); {"Granted", usd, calls, tokens}; {"Refused", scope, id, model, window, unit, reason, limit,
--          spent, held, requested, reset or nil}; {"Closed"}; {"CountExactly"}; {"RollNeeded", now, due, ...};
--          {"Again"}: too much was due for one run, send the command again

local PLENTY, RANKS = 64, {blocked = 0, spent = 1, held = 2}
local id, now, subjects, order, models, want, lifetime, floor, at_least, replaces, cheap, patient, label, rolls =
    unpack(cjson.decode(ARGV[1]))
local defaults = cjson.decode(ARGV[2])
local least = {at_least or want[1], want[2], want[3]}

local rare = {}     -- what is needed when money is refused or replaced

-- lazily: rare
function rare.subject_of(account)
    return account.subject.scope, account.subject.id
end

function rare.refused(account, reason, limit, spent, held, needed, stop)
    local scope, subject = rare.subject_of(account)
    return {'Refused', scope, subject, account.model, account.window, account.unit, reason, limit, spent, held, needed, stop}
end

function rare.refused_by_limit(account, limit, held, needed)
    local room_unheld, reason = tonumber(numbers.sub(limit, account.spent)), 'held'
    if account.blocked then
        reason = 'blocked'
    elseif room_unheld < needed or room_unheld <= 0 then
        reason = 'spent'
    end
    return rare.refused(account, reason, limit, account.spent, held, needed, account.stop)
end

-- What the hold that is to be replaced would free on an account.
function rare.freed_on(account, replaced)
    if not replaced or replaced.state ~= 'open' then
        return 0
    end
    for _, leg in ipairs(replaced.legs) do
        local subject = replaced.subjects[leg[1]]
        if subject[1] == account.subject.scope and subject[2] == account.subject.id and leg[2] == account.model
            and leg[3] == account.window and leg[4] == account.unit then
            return replaced.amounts[UNITS[leg[4]]]
        end
    end
    return 0
end

function rare.repeated(known)
    if known.state == 'open' and known.at > work.now then
        return {'Granted', unpack(known.amounts)}
    elseif known.state == 'refused' and known.reply then
        return known.reply
    elseif known.state == 'open' and not holding.expire_every() then
        return {'Again'}
    end
    -- The attempt that this hold was for goes on without it, but the one before is over all the same.
    if replaces then
        holding.give_back(replaces)
    end
    work.save()
    return {'Closed'}
end

function rare.refuse(reply)
    if not (patient and reply[7] == 'held') then
        work.put_hold(work.new_hold(id, 'refused', work.now, {reply = reply}))
        for _, subject in ipairs(subjects) do
            work.add_total(subject[1], subject[2], work.day, label, {0, 0, 0, 0, 1, 0})
        end
    end
    work.save()
    return reply
end
-- and at once:

local function grant(applies)
    local replaced = replaces and work.hold(replaces)
    local first, usd, plenty = nil, want[1], true
    for _, entry in ipairs(applies) do
        local account, unit = entry.account, UNITS[entry.account.unit]
        local wanted, needed, limit = want[unit], least[unit], applying.limit(account, entry.default)
        if wanted ~= 0 and (limit or account.blocked) then
            limit = limit or 0
            local held = replaced and numbers.sub(account.held, rare.freed_on(account, replaced)) or account.held
            local room = tonumber(numbers.sub(numbers.sub(limit, account.spent), held))
            plenty = plenty and (unit == 2 or room >= PLENTY * wanted)
            if account.blocked or room < needed or room <= 0 then
                local reply = rare.refused_by_limit(account, limit, held, needed)
                -- They come in the order of their keys: the first of the lowest rank counts.
                if not first or RANKS[reply[7]] < RANKS[first[7]] then
                    first = reply
                end
            elseif unit == 1 then
                usd = math.min(usd, room)
            end
        end
    end
    if cheap and not plenty then
        return nil, {'CountExactly'}
    elseif first then
        return nil, first
    end
    return {usd, want[2], want[3]}
end

local function in_the_way(amounts, reply)
    if amounts then
        return amounts[1] < want[1]
    end
    return reply[1] == 'Refused'
end

local function take(amounts, applies)
    if replaces then
        holding.give_back(replaces)
    end
    local legs = {}
    for place, entry in ipairs(applies) do
        legs[place] = {entry.subject, entry.account.model, entry.account.window, entry.account.unit}
    end
    local kept = {math.min(floor[1], amounts[1]), math.min(floor[2], amounts[2]), math.min(floor[3], amounts[3])}
    holding.put_on(work.new_hold(id, 'open', work.now + lifetime, {amounts = amounts, floor = kept, model = label,
        subjects = subjects, legs = legs}))
    work.save()
    if amounts[1] == want[1] and amounts[2] == want[2] and amounts[3] == want[3] then
        return 1
    end
    return {'Granted', unpack(amounts)}
end

work.begin(now)
local known = work.hold(id)
if known then
    return rare.repeated(known)
end
holding.expire_few(replaces)
local applies, due = applying.find(subjects, order, models, defaults, rolls, false, 'R:' .. id)
if #due > 0 then
    return applying.roll_needed(due)
end
local amounts, reply = grant(applies)
-- Money of calls that are long over must neither refuse a call nor shorten it.
if in_the_way(amounts, reply) then
    local expired = holding.expire_every(replaces)
    if not expired then
        return {'Again'}
    elseif expired > 0 then
        amounts, reply = grant(applies)
    end
end
if amounts then
    return take(amounts, applies)
elseif reply[1] == 'CountExactly' then
    return reply
end
return rare.refuse(reply)
