--- :checkhealth codestral

local client = require('codestral.client')
local config = require('codestral.config')
local keys = require('codestral.keys')
local status = require('codestral.status')

local M = {}

local health = vim.health
local PATIENCE_MS = 5000

local function check_neovim()
  local version = tostring(vim.version())
  if vim.fn.has('nvim-0.10') == 0 then
    return health.error(('Neovim %s: 0.10 or later is needed'):format(version))
  end
  local how = config.values.render == 'native' and "drawn by Neovim itself (render = 'native')"
    or 'drawn by this plugin'
  health.ok(('Neovim %s, suggestions are %s'):format(version, how))
end

local function check_program()
  local program = client.program()
  if not program then
    health.error(('%s: not found on PATH'):format(config.values.cmd[1]), {
      'Install it: `uv tool install .` or `pipx install .` in a clone',
      "Or name it: require('codestral').setup({ cmd = { '/path/to/codestral-lsp', '--stdio' } })",
    })
    return
  end
  local ok, done = pcall(function()
    return vim.system({ program, '--version' }, { text = true }):wait(PATIENCE_MS)
  end)
  local version = ok and done.code == 0 and vim.trim(done.stdout) or nil
  if version then
    health.ok(('%s (%s)'):format(program, version))
  else
    health.warn(('%s: `--version` says nothing'):format(program), { 'Is this the right program? See the option `cmd`' })
  end
end

local function check_server()
  local running = client.get()
  if not running then
    local advice = { 'Open a file and look again', ':Codestral restart', 'The log: ' .. vim.lsp.get_log_path() }
    local say = status.current.state == 'none' and health.info or health.warn
    say('the server does not run: ' .. status.sentence(), status.current.state ~= 'none' and advice or nil)
    return
  end
  local attached = vim.tbl_filter(client.is_attached, vim.api.nvim_list_bufs())
  health.ok(('the server runs, for %d buffers, with columns in %s'):format(#attached, running.offset_encoding))
  local is_wrong = status.current.state == 'error' or status.current.kind == 'Error'
  local say = is_wrong and health.warn or health.ok
  say('it is ' .. status.sentence(), is_wrong and { ':Codestral log', ':Codestral restart' } or nil)
end

local function check_options()
  if #config.problems == 0 then
    health.ok('options are understood')
  end
  for _, problem in ipairs(config.problems) do
    health.warn(problem, { ':help codestral-options' })
  end
  if not require('codestral').is_enabled() then
    health.info('suggestions are switched off here: :Codestral enable')
  end
end

local function check_keys()
  local attached = vim.tbl_filter(client.is_attached, vim.api.nvim_list_bufs())
  for name in vim.spairs(keys.actions) do
    local key = config.values.keys[name]
    local owner = key and keys.owner(key, attached) or nil
    if not key then
      health.info(('%s has no key'):format(name))
    elseif not owner then
      health.ok(('%s: %s'):format(name, key))
    else
      health.warn(('%s: %s is mapped to something else (%s)'):format(name, key, owner), {
        ("Call require('codestral').%s() in that mapping; it returns false where there is nothing to do"):format(name),
        ':help codestral-nvim-cmp has examples',
      })
    end
  end
end

function M.check()
  require('codestral').start()
  health.start('codestral: Neovim')
  check_neovim()
  health.start('codestral: program')
  check_program()
  health.start('codestral: server')
  check_server()
  health.start('codestral: options')
  check_options()
  health.start('codestral: keys')
  check_keys()
end

return M
