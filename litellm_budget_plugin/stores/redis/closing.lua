-- Holds that end otherwise than by their own Settle: core/holding.py.
-- needs: holding
-- lazily: holding

-- Takes a charge out of an open hold's money, as far as that goes.
function holding.draw_from_parent(id, charge)
    local parent = work.hold(id)
    if not parent or parent.state ~= 'open' then
        return
    end
    local drawn, left = {}, {}
    for unit = 1, 3 do
        drawn[unit] = math.min(tonumber(charge[unit]), parent.amounts[unit])
        left[unit] = parent.amounts[unit] - drawn[unit]
    end
    parent.amounts = left
    work.put_hold(parent)
    holding.hold_on_legs(parent, drawn, -1)
end

-- Takes back the floor that an expired hold was charged: from the windows that it went to, if they are still the same,
-- and from the totals in any case. Returns, by the rows' ids, what earlier windows keep.
function holding.refund_floor(hold)
    local kept, floor = {}, hold.floor
    for _, charged in ipairs(hold.charged) do
        local subject = hold.subjects[charged[1]]
        for _, account in ipairs(work.subject(subject[1], subject[2]).accounts) do
            if account.id == charged[2] and account.epoch == charged[3] then
                applying.charge(account, -floor[UNITS[account.unit]], hold.model)
                work.stage(account)
            elseif account.id == charged[2] then
                kept[charged[2]] = floor
            end
        end
    end
    for _, subject in ipairs(hold.subjects) do
        local day = hold.day
        if tonumber(work.unsettled(subject[1], subject[2], day, hold.model)) < 1 then
            day = 0
        end
        work.add_total(subject[1], subject[2], day, hold.model, {-floor[1], -floor[2], -floor[3], 0, 0, -1})
    end
    return kept
end

-- Releases a hold, whatever has become of it.
function holding.give_back(id)
    local hold = work.hold(id)
    if hold and hold.state ~= 'open' and hold.state ~= 'expired' then
        return
    end
    if hold and hold.state == 'open' then
        holding.take_off(hold)
    elseif hold then
        holding.refund_floor(hold)
    end
    work.put_hold(work.new_hold(id, 'released', work.now))
end

local function expire(hold)
    local floor = hold.floor
    holding.take_off(hold)
    hold.charged = {}
    for _, leg in ipairs(hold.legs) do
        local account = work.leg(hold, leg)
        if account then
            applying.charge(account, floor[UNITS[leg[4]]], hold.model)
            work.stage(account)
            table.insert(hold.charged, {leg[1], account.id, account.epoch})
        end
    end
    hold.state, hold.at, hold.day = 'expired', work.now, work.day
    work.put_hold(hold)
    for _, subject in ipairs(hold.subjects) do
        work.add_total(subject[1], subject[2], hold.day, hold.model, {floor[1], floor[2], floor[3], 0, 0, 1})
    end
end

function holding.expire_all(ids, spare)
    local expired = 0
    for _, id in ipairs(ids) do
        local hold = work.hold(id)
        if hold and hold.state == 'open' and hold.at <= work.now and id ~= spare then
            expire(hold)
            expired = expired + 1
        end
    end
    return expired
end

-- Expires every due hold. Returns how many; nil if there are too many for one run: then ROUND of them have been written
-- off, nothing else was changed, and the script is to answer {"Again"}.
function holding.expire_every(spare)
    local ids = work.due(ROUND + 1)
    if #ids <= ROUND then
        return holding.expire_all(ids, spare)
    end
    work.restart()
    ids[#ids] = nil
    holding.expire_all(ids, spare)
    work.save()
    return nil
end
