--- Neovim's own inline completion (0.12 and later) in place of our drawing: `render = 'native'`.
---
--- It waits 200 ms before it asks, ends no request that a key has overtaken, and knows no alternatives but those it has
--- got. Here are only the actions on it.

local client = require('codestral.client')
local text = require('codestral.text')

local M = {}

local function namespace()
  return vim.api.nvim_get_namespaces()['nvim.lsp.inline_completion']
end

---@param is_on boolean
---@param bufnr integer
function M.enable(is_on, bufnr)
  if client.is_attached(bufnr) then
    vim.lsp.inline_completion.enable(is_on, { bufnr = bufnr })
  end
end

---@return boolean
function M.is_visible()
  local space = namespace()
  return space ~= nil and #vim.api.nvim_buf_get_extmarks(0, space, 0, -1, { limit = 1 }) > 0
end

--- Accepts what `cut` leaves of the text. Neovim draws no rest: the server offers it again at once.
---@param cut? fun(rest: string): string
---@return boolean
local function accept(cut)
  if not M.is_visible() then
    return false
  end
  return vim.lsp.inline_completion.get({
    on_accept = function(item)
      if not cut or type(item.insert_text) ~= 'string' then
        return item
      end
      local row, col = unpack(vim.api.nvim_win_get_cursor(0))
      local from = item.range and item.range:to_extmark() == row - 1 and select(2, item.range:to_extmark()) or col
      local n_typed = math.max(0, col - from)
      local part = item.insert_text:sub(1, n_typed) .. cut(item.insert_text:sub(n_typed + 1))
      if part ~= item.insert_text then
        local sent = { insertText = item.insert_text, command = item.command }
        client.notify(
          'textDocument/didPartiallyAcceptCompletion',
          { item = sent, acceptedLength = text.utf16_length(part) }
        )
        item.insert_text, item.command = part, nil
      end
      return item
    end,
  })
end

function M.accept()
  return accept()
end

function M.accept_word()
  return accept(text.first_word)
end

function M.accept_line()
  return accept(text.first_line)
end

---@param step integer
---@return boolean
function M.step(step)
  if not M.is_visible() then
    return false
  end
  vim.lsp.inline_completion.select({ count = step })
  return true
end

---@return boolean
function M.dismiss()
  local is_visible = M.is_visible()
  if is_visible then
    local bufnr = vim.api.nvim_get_current_buf()
    vim.lsp.inline_completion.enable(false, { bufnr = bufnr }) -- there is no gentler way in its interface
    vim.lsp.inline_completion.enable(true, { bufnr = bufnr })
  end
  return is_visible
end

return M
