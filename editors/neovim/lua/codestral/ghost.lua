--- Draws a suggestion into the buffer so that what one sees is what one gets. Knows extmarks; decides nothing.
---
--- Neovim expands no tabs in virtual lines, cuts them off at the window's edge and does not scroll them sideways, so all
--- three are done here.

local text = require('codestral.text')

local M = {}

M.namespace = vim.api.nvim_create_namespace('codestral')

local MOST_HIDDEN = 500 -- characters right of the cursor that are covered one by one

function M.define_highlights()
  vim.api.nvim_set_hl(0, 'CodestralGhost', { link = 'Comment', default = true })
  vim.api.nvim_set_hl(0, 'CodestralCount', { link = 'NonText', default = true })
end

---@param bufnr integer
function M.clear(bufnr)
  if vim.api.nvim_buf_is_valid(bufnr) then
    vim.api.nvim_buf_clear_namespace(bufnr, M.namespace, 0, -1)
  end
end

--- `hl_mode` is not to combine: ghost text before a bracket would look like the bracket, which Neovim highlights.
local function put(view, col, chunks, options)
  options = vim.tbl_extend('force', { virt_text_pos = 'inline', hl_mode = 'replace', strict = false }, options or {})
  options.virt_text = chunks
  vim.api.nvim_buf_set_extmark(view.bufnr, M.namespace, view.row, col, options)
end

--- Covers text that will stand somewhere else. One mark a character, because an overlay does not wrap.
---
--- An overlay at the cursor begins where the ghost text there begins, not behind it, so the first one repeats that text.
---@param ghost string drawn at the cursor
---@param hidden string the buffer's text from the cursor on
local function hide(view, ghost, hidden)
  local from, column = view.col, view.column
  for i, character in ipairs(vim.fn.split(hidden, '\\zs')) do
    if i > MOST_HIDDEN then
      return
    end
    local wide = vim.fn.strdisplaywidth(character, column)
    local chunks = { { (' '):rep(wide) } }
    if i == 1 and ghost ~= '' then
      table.insert(chunks, 1, { ghost, 'CodestralGhost' })
    end
    put(view, from, chunks, { virt_text_pos = 'overlay' })
    from, column = from + #character, column + wide
  end
end

--- The closers that are replaced stay where they are, and what is new stands around them.
local function draw_around(view, rest, count)
  local tail = view.tail
  local places = tail:find('[\128-\255]') == nil and text.places_in(tail, rest) or nil
  if not places then
    hide(view, text.drawable(rest, view.column), tail)
    tail, places = '', {}
  end
  local from, column = 1, view.column
  for i = 1, #tail + 1 do
    local piece = text.drawable(rest:sub(from, (places[i] or #rest + 1) - 1), column)
    local chunks = piece ~= '' and { { piece, 'CodestralGhost' } } or {}
    if i == #tail + 1 and count then
      chunks[#chunks + 1] = { count, 'CodestralCount' }
    end
    if #chunks > 0 then
      put(view, view.col + i - 1, chunks)
    end
    column = column + vim.fn.strdisplaywidth(piece, column) + 1
    from = (places[i] or 0) + 1
  end
end

--- A screen line below the cursor's, in as many pieces as the window needs.
local function add_lines(view, virtual, line, moved, count)
  local chunks = {}
  for _, part in ipairs({ { line, 'CodestralGhost' }, { moved }, { count or '', 'CodestralCount' } }) do
    if part[1] ~= '' then
      chunks[#chunks + 1] = part
    end
  end
  if #chunks == 1 then
    local pieces = view.wraps and text.wrapped(line, view.width) or { text.scrolled(line, view.leftcol) }
    for _, piece in ipairs(pieces) do
      virtual[#virtual + 1] = { { piece, 'CodestralGhost' } }
    end
  else
    virtual[#virtual + 1] = #chunks > 0 and chunks or { { '', 'CodestralGhost' } }
  end
end

local function draw_lines(view, lines, count)
  local moved = view.tail .. view.after -- of it `after` goes behind the last line, and `tail` is replaced
  local first = text.drawable(lines[1], view.column)
  hide(view, first, moved)
  local virtual = {}
  for i = 2, #lines do
    local drawn = text.drawable(lines[i], 0)
    local is_last = i == #lines
    local after = is_last and text.drawable(view.after, vim.fn.strdisplaywidth(drawn)) or ''
    add_lines(view, virtual, drawn, after, is_last and count or nil)
  end
  put(view, view.col, first ~= '' and { { first, 'CodestralGhost' } } or nil, { virt_lines = virtual })
end

--- Draws what is left of a suggestion at the cursor of the current window.
---@param bufnr integer
---@param cursor integer[] row and column in bytes, both from 0
---@param what { rest: string, tail: string, after: string, count: string? }
function M.draw(bufnr, cursor, what)
  M.clear(bufnr)
  local line = vim.api.nvim_buf_get_lines(bufnr, cursor[1], cursor[1] + 1, false)[1] or ''
  local info = vim.fn.getwininfo(vim.api.nvim_get_current_win())[1]
  local view = {
    bufnr = bufnr,
    row = cursor[1],
    col = cursor[2],
    column = vim.fn.strdisplaywidth(line:sub(1, cursor[2])),
    tail = what.tail,
    after = what.after,
    wraps = vim.wo.wrap,
    width = math.max(1, info.width - info.textoff),
    leftcol = vim.wo.wrap and 0 or vim.fn.winsaveview().leftcol,
  }
  local lines = vim.split(what.rest, '\n', { plain = true })
  if #lines == 1 then
    draw_around(view, what.rest, what.count)
  else
    draw_lines(view, lines, what.count)
  end
end

return M
