// What node-postgres does by default: simple and extended queries, named statements, pools, types, errors by code.
'use strict'
const assert = require('assert')
const { Client, Pool } = require('pg')

const where = { host: process.argv[2], port: Number(process.argv[3]), database: 'plant', user: 'tester' }

async function main () {
  const c = new Client(where)
  await c.connect()
  let r = await c.query('SELECT 1 AS one, \'x\'::text AS x, true AS yes, now() AS at, 1.5::numeric AS n, \'{"a": [1]}\'::jsonb AS j, ARRAY[\'p\',\'q\'] AS list')
  assert.strictEqual(r.rows[0].one, 1)
  assert.strictEqual(r.rows[0].yes, true)
  assert.ok(r.rows[0].at instanceof Date)
  assert.strictEqual(r.rows[0].n, '1.5')
  assert.deepStrictEqual(r.rows[0].j, { a: [1] })
  assert.deepStrictEqual(r.rows[0].list, ['p', 'q'])

  r = await c.query('INSERT INTO sensors (site, sensor, value, unit, at) VALUES ($1, $2, $3, $4, $5) RETURNING value, at', ['node', 'a', 21.5, 'C', new Date('2026-01-31T12:00:00Z')])
  assert.strictEqual(r.command, 'INSERT')
  assert.strictEqual(r.rowCount, 1)
  assert.strictEqual(r.rows[0].value, '21.5')
  assert.strictEqual(r.rows[0].at.toISOString(), '2026-01-31T12:00:00.000Z')

  const upsert = { name: 'upsert', text: 'INSERT INTO sensors (site, sensor, value) VALUES ($1, $2, $3) ON CONFLICT (site, sensor) DO UPDATE SET value = excluded.value' }
  for (let i = 0; i < 50; i++) {
    r = await c.query({ ...upsert, values: ['node', 'b', i] })
    assert.strictEqual(r.rowCount, 1)
  }
  r = await c.query('SELECT sensor, value FROM sensors WHERE site = $1 AND sensor = ANY($2) ORDER BY sensor', ['node', ['a', 'b', 'c']])
  assert.deepStrictEqual(r.rows, [{ sensor: 'a', value: '21.5' }, { sensor: 'b', value: '49' }])
  r = await c.query({ text: 'SELECT sensor, value FROM sensors WHERE site = $1 ORDER BY 1', values: ['node'], rowMode: 'array' })
  assert.deepStrictEqual(r.rows[1], ['b', '49'])

  await c.query('INSERT INTO plant.orders (id, state, details, urgent, scan) VALUES ($1, $2, $3, $4, $5)', [1, 'new', { lines: [1, 2] }, true, Buffer.from([0, 255])])
  r = await c.query('SELECT * FROM plant.orders WHERE id = $1', [1])
  assert.deepStrictEqual(r.rows[0].details, { lines: [1, 2] })
  assert.deepStrictEqual([...r.rows[0].scan], [0, 255])
  assert.strictEqual(r.rows[0].id, '1') // an int8
  assert.strictEqual(r.rows[0].site, null)

  const fails = async (code, ...q) => {
    try {
      await c.query(...q)
    } catch (e) {
      assert.strictEqual(e.code, code, `${q[0]}: ${e.code} ${e.message}`)
      return
    }
    assert.fail(`${q[0]}: no error`)
  }
  await fails('42P01', 'SELECT * FROM nowhere')
  await fails('42703', 'SELECT nope FROM sensors')
  await fails('23505', 'INSERT INTO sensors (site, sensor, value) VALUES ($1, $2, 1)', ['node', 'a'])
  await fails('22P02', 'SELECT $1::int', ['x'])
  await fails('42601', 'SELEC 1')
  await fails('0A000', 'CREATE TABLE t (a int)')

  await c.query('BEGIN')
  await c.query('UPDATE sensors SET value = value + 1 WHERE site = $1', ['node'])
  r = await c.query('SELECT sum(value) AS s FROM sensors WHERE site = $1', ['node'])
  assert.strictEqual(Number(r.rows[0].s), 72.5)
  await fails('42703', 'SELECT nope FROM sensors')
  await fails('25P02', 'SELECT 1')
  await c.query('ROLLBACK')
  r = await c.query('SELECT sum(value) AS s FROM sensors WHERE site = $1', ['node'])
  assert.strictEqual(Number(r.rows[0].s), 70.5)

  await c.query('SET default_transaction_read_only = on')
  await fails('25006', 'DELETE FROM sensors')
  await c.query('RESET default_transaction_read_only')

  r = await c.query('SELECT 1 AS a; SELECT 2 AS b')
  assert.deepStrictEqual(r.map(x => x.rows), [[{ a: 1 }], [{ b: 2 }]])

  await c.query('LISTEN sensors')
  const heard = new Promise(resolve => c.once('notification', resolve))
  const pool = new Pool({ ...where, max: 4 })
  await Promise.all(Array.from({ length: 40 }, async (_, i) => {
    const k = await pool.connect()
    try {
      await k.query('BEGIN ISOLATION LEVEL REPEATABLE READ')
      await k.query('INSERT INTO sensors (site, sensor, value) VALUES ($1, $2, $3)', ['pool', String(i), i])
      await k.query('COMMIT')
    } finally {
      k.release()
    }
  }))
  const n = JSON.parse((await heard).payload)
  assert.strictEqual(n.op, 'put')
  assert.strictEqual(n.key.site, 'pool')
  r = await pool.query('SELECT count(*) AS n, count(*) FILTER (WHERE value >= 20) AS big FROM sensors WHERE site = $1', ['pool'])
  assert.deepStrictEqual(r.rows[0], { n: '40', big: '20' })
  r = await pool.query('DELETE FROM sensors WHERE site = $1', ['pool'])
  assert.strictEqual(r.rowCount, 40)
  await pool.end()
  await c.end()
  console.log('ok')
}

main().catch(e => { console.error(e); process.exit(1) })
