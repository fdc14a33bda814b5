--- One suggestion: the server's item at its place in a buffer, and how much of it stands there already.
---
--- Follows what is typed: while that agrees with the text, what is left of it is known without asking anybody.
--- Draws nothing and sends nothing.

local text = require('codestral.text')

local M = {}

---@class codestral.Suggestion
---@field item table as the server sent it
---@field bufnr integer
---@field row integer from 0, where the cursor was
---@field col integer in bytes
---@field before string of that line, left of the cursor
---@field after string of that line, right of what is replaced
---@field tail string right of the cursor, replaced when the whole is accepted
---@field full string the item's text with \n between lines
---@field n_head integer bytes of `full` that stood left of the cursor from the start
---@field n_used integer bytes of `full` that stand in the buffer by now
---@field is_told boolean whether the server knows that it was shown

---@param bufnr integer
---@param item table lsp.InlineCompletionItem
---@param encoding string
---@param cursor integer[] row and column in bytes, both from 0
---@return codestral.Suggestion? suggestion nil where it cannot be shown as text at the cursor
function M.new(bufnr, item, encoding, cursor)
  local row, col = cursor[1], cursor[2]
  local line = vim.api.nvim_buf_get_lines(bufnr, row, row + 1, false)[1] or ''
  local given = type(item.insertText) == 'table' and item.insertText.value or item.insertText
  if type(given) ~= 'string' or given == '' then
    return nil
  end
  local from, to = col, col
  if type(item.range) == 'table' then
    if item.range.start.line ~= row or item.range['end'].line ~= row then
      return nil
    end
    from = text.byte_of(line, item.range.start.character, encoding)
    to = text.byte_of(line, item.range['end'].character, encoding)
  end
  local full = given:gsub('\r\n?', '\n')
  local head = line:sub(from + 1, col)
  if from > col or to < col or not vim.startswith(full, head) or #full == #head then
    return nil
  end
  return {
    item = item,
    bufnr = bufnr,
    row = row,
    col = col,
    before = line:sub(1, col),
    after = line:sub(to + 1),
    tail = line:sub(col + 1, to),
    full = full,
    n_head = #head,
    n_used = #head,
    is_told = false,
  }
end

---@param suggestion codestral.Suggestion
---@return string rest that is not typed yet
function M.rest(suggestion)
  return suggestion.full:sub(suggestion.n_used + 1)
end

--- Looks at the buffer and takes note of what was typed.
---@param suggestion codestral.Suggestion
---@param cursor integer[] row and column in bytes, both from 0
---@return 'same'|'further'|'done'|'back'|'other' what has happened; only after the first two it may still be shown
function M.follow(suggestion, cursor)
  local row, col, bufnr = suggestion.row, suggestion.col, suggestion.bufnr
  local line = vim.api.nvim_buf_get_lines(bufnr, cursor[1], cursor[1] + 1, false)[1] or ''
  local right = line:sub(cursor[2] + 1)
  if cursor[1] == row and cursor[2] < col then
    local is_back = suggestion.before:sub(1, cursor[2]) == line:sub(1, cursor[2])
    return is_back and right == suggestion.tail .. suggestion.after and 'back' or 'other'
  end
  local first = vim.api.nvim_buf_get_lines(bufnr, row, row + 1, false)[1]
  if cursor[1] < row or not first or first:sub(1, col) ~= suggestion.before then
    return 'other'
  end
  local typed = table.concat(vim.api.nvim_buf_get_text(bufnr, row, col, cursor[1], cursor[2], {}), '\n')
  if suggestion.full:sub(suggestion.n_head + 1, suggestion.n_head + #typed) ~= typed then
    return 'other'
  end
  local n_used = suggestion.n_head + #typed
  local tail = text.tail_of(right, suggestion.after, suggestion.tail, suggestion.full:sub(n_used + 1))
  if not tail then
    return 'other'
  end
  if n_used < suggestion.n_used then
    return 'back'
  end
  local how = n_used == #suggestion.full and 'done' or n_used > suggestion.n_used and 'further' or 'same'
  suggestion.n_used, suggestion.tail = n_used, tail
  return how
end

--- How much of the item's own text stands in the buffer, as the server counts.
---@param suggestion codestral.Suggestion
---@return integer length in UTF-16 units from the start of insertText
function M.accepted_length(suggestion)
  local used = suggestion.full:sub(1, suggestion.n_used)
  local given = type(suggestion.item.insertText) == 'table' and suggestion.item.insertText.value
    or suggestion.item.insertText
  local n_breaks = given:find('\r\n', 1, true) and select(2, used:gsub('\n', '')) or 0 -- a carriage return with each
  return text.utf16_length(used) + n_breaks
end

return M
