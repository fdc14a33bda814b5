--- Whether a completion menu is open: Neovim's own, nvim-cmp's or blink.cmp's. A suggestion behind a menu is in its way.

local M = {}

local is_watched = false

---@return boolean
function M.is_open()
  if vim.fn.pumvisible() == 1 then
    return true
  end
  local cmp = package.loaded['cmp']
  if type(cmp) == 'table' and cmp.visible and cmp.visible() then
    return true
  end
  local blink = package.loaded['blink.cmp']
  if type(blink) ~= 'table' then
    return false
  end
  local is_visible = blink.is_menu_visible or blink.is_visible
  return is_visible ~= nil and is_visible() == true
end

--- nvim-cmp tells of its menu by events of its own. It may be loaded at any time, so this is asked for more than once.
---@param on_change fun()
function M.watch(on_change)
  local cmp = package.loaded['cmp']
  if is_watched or type(cmp) ~= 'table' or not cmp.event then
    return
  end
  is_watched = true
  cmp.event:on('menu_opened', vim.schedule_wrap(on_change))
  cmp.event:on('menu_closed', vim.schedule_wrap(on_change))
end

return M
