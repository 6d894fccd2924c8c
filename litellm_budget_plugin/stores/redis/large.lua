-- What is done only to sums that do not fit a double, and with the product of two amounts.
-- needs: numbers
-- lazily: numbers

local BASE = 1e12

-- high * BASE + low, either of them maybe negative.
function numbers.halves(sum)
    if type(sum) == 'number' then
        local high = math.floor(sum / BASE)
        return high, sum - high * BASE
    end
    local sign, digits = 1, sum
    if string.sub(sum, 1, 1) == '-' then
        sign, digits = -1, string.sub(sum, 2)
    end
    return sign * tonumber(string.sub(digits, 1, -13)), sign * tonumber(string.sub(digits, -12))
end

function numbers.joined(high, low)
    local carried = math.floor(low / BASE)
    high, low = high + carried, low - carried * BASE
    if high > -9000 and high < 9000 then
        return high * BASE + low
    end
    local sign = ''
    if high < 0 then
        sign, high = '-', -high
        if low > 0 then
            high, low = high - 1, BASE - low
        end
    end
    return sign .. string.format('%.0f%012.0f', high, low)
end

-- The digits of a whole number that is not negative in base 10^6, the lowest first.
function numbers.digits(sum)
    local text = type(sum) == 'number' and string.format('%.0f', sum) or sum
    local found = {}
    for last = #text, 1, -6 do
        found[#found + 1] = tonumber(string.sub(text, math.max(1, last - 5), last))
    end
    return found
end

-- Whether sum * 10^6 >= one * other, exactly. Neither `one` nor `other` is negative.
function numbers.reaches(sum, one, other)
    local left, right = tonumber(sum) * 1e6, one * other
    if left > right * (1 + 1e-9) then
        return true
    elseif left < right * (1 - 1e-9) then
        return false
    end
    local product, high = {}, numbers.digits(other)
    for place, digit in ipairs(numbers.digits(one)) do
        for more, times in ipairs(high) do
            local at = place + more - 1
            product[at] = (product[at] or 0) + digit * times
        end
    end
    for place = 1, #product do
        local carried = math.floor(product[place] / 1e6)
        product[place] = product[place] - carried * 1e6
        if carried > 0 then
            product[place + 1] = (product[place + 1] or 0) + carried
        end
    end
    if product[#product] >= 1e6 then
        product[#product + 1] = math.floor(product[#product] / 1e6)
        product[#product - 1] = product[#product - 1] % 1e6
    end
    local shifted = numbers.digits(sum)
    table.insert(shifted, 1, 0)
    for place = math.max(#product, #shifted), 1, -1 do
        local mine, theirs = shifted[place] or 0, product[place] or 0
        if mine ~= theirs then
            return mine > theirs
        end
    end
    return true
end
