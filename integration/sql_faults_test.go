package integration

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// benchSchema are pgbench's tables, with fewer accounts, a column for the other side's writes, and a key for the history.
const benchSchema = `
CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));
CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84), note int);
CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
INSERT INTO pgbench_branches VALUES (1, 0);
INSERT INTO pgbench_tellers SELECT i, 1, 0 FROM generate_series(1, 10) i;
INSERT INTO pgbench_accounts SELECT i, 1, 0, '' FROM generate_series(1, 500) i;
`

const benchMapping = `
register "account/{id}" {
  fields = { balance = number, value = number }
  bind "http" "/accounts/{id}" {}
  bind "mqtt" "sensors/kill/{id}" {}
  bind "sql" "pgbench_accounts" {
    key = { id = payload.aid }
    map = { balance = payload.abalance, value = payload.note }
  }
}
register "teller/{id}" {
  fields = { balance = number }
  bind "sql" "pgbench_tellers" {
    key = { id = payload.tid }
    map = { balance = payload.tbalance }
  }
}
register "branch/{id}" {
  fields = { balance = number }
  bind "sql" "pgbench_branches" {
    key = { id = payload.bid }
    map = { balance = payload.bbalance }
  }
}
`

// tpcb is pgbench's own transaction ("TPC-B (sort of)") over benchSchema.
const tpcb = `
\set aid random(1, 500)
\set tid random(1, 10)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = 1;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime, filler) VALUES (:tid, 1, :aid, :delta, CURRENT_TIMESTAMP, '$way');
END;
`

// A benchPlant is pgbench and writers of the other side around a gateway, all of which may lose whom they speak to.
type benchPlant struct {
	*dataPlant
	bench  string
	way    [2]string // scripts: straight at the server, and through the gateway
	web    []*ledger // rows that pgbench does not know, by HTTP
	floor  []*ledger // rows that pgbench writes as well, by MQTT
	stop   context.CancelFunc
	works  sync.WaitGroup
	enough chan struct{}
	acked  atomic.Int64
}

func newBenchPlant(t *testing.T, pg *pgServer, head string) *benchPlant {
	t.Helper()
	b := &benchPlant{dataPlant: newDataPlantOn(t, pg, benchSchema, benchMapping, ""), bench: peer(t, "pgbench", "postgresql-contrib")}
	b.program = plainProgram(t)
	b.configure(head + b.wrappers)
	for i, name := range []string{"direct", "through"} {
		b.way[i] = filepath.Join(b.dir, name+".sql")
		writeFile(t, b.way[i], strings.ReplaceAll(tpcb, "$way", name))
	}
	for i := range 2 {
		b.web = append(b.web, &ledger{register: fmt.Sprintf("account/%d", 1001+i)})
		b.floor = append(b.floor, &ledger{register: fmt.Sprintf("account/%d", 1+i)})
	}
	t.Cleanup(b.rest)
	return b
}

// load has everybody work until rest.
func (b *benchPlant) load() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	b.stop, b.enough = cancel, make(chan struct{})
	for i, port := range []int{b.pg.port, b.port} {
		b.works.Go(func() {
			for ctx.Err() == nil {
				cmd := exec.CommandContext(ctx, b.bench, "-n", "-M", "prepared", "-f", b.way[i], "-c", "2", "-R", "60", "-T", "600", "-h", "127.0.0.1", "-p", fmt.Sprint(port), "-U", "postgres", "plant")
				endWithParent(cmd)
				_ = cmd.Run() // it gives up when its server goes
				select {
				case <-time.After(20 * time.Millisecond): // nobody tells when it is back
				case <-ctx.Done():
				}
			}
		})
	}
	const pace = 5 * time.Millisecond
	for _, l := range b.web {
		id := strings.TrimPrefix(l.register, "account/")
		b.works.Go(func() {
			if err := putUntil(ctx, b.httpURL()+"/accounts/"+id, l, b.enough, &b.acked); err != nil {
				b.t.Error(err)
			}
		})
	}
	for _, l := range b.floor {
		id := strings.TrimPrefix(l.register, "account/")
		b.works.Go(func() {
			if err := publishUntil(ctx, b.mqttAddr(), id, pace, l, b.enough, &b.acked); err != nil {
				b.t.Error(err)
			}
		})
	}
}

// rest ends the load.
func (b *benchPlant) rest() {
	if b.stop == nil {
		return
	}
	close(b.enough)
	b.stop()
	b.works.Wait()
	b.stop = nil
}

// want gives what each register is to be, by the rows.
func (b *benchPlant) want() map[string]string {
	b.t.Helper()
	want := map[string]string{}
	out, err := b.pg.try(b.pg.port, `SELECT 'account/' || aid, abalance, note FROM pgbench_accounts
		UNION ALL SELECT 'teller/' || tid, tbalance, NULL FROM pgbench_tellers UNION ALL SELECT 'branch/' || bid, bbalance, NULL FROM pgbench_branches`)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "|")
		var members []string
		if f[1] != "" {
			members = append(members, `"balance":`+f[1])
		}
		if f[2] != "" {
			members = append(members, `"value":`+f[2])
		}
		want[f[0]] = "{" + strings.Join(members, ",") + "}"
	}
	return want
}

// agree compares registers and rows one by one, and the rows with what the other side was promised.
func (b *benchPlant) agree(after string) {
	b.t.Helper()
	var got, want map[string]string
	same := within(patience, func() bool {
		got, want = b.registers(""), b.want()
		return len(want) >= 500 && maps.Equal(got, want) && b.kept(want) == ""
	})
	if same {
		return
	}
	for k, v := range want {
		if got[k] != v {
			b.t.Errorf("after %s: %s: the register is %s, the row %s", after, k, got[k], v)
		}
	}
	for k, v := range got {
		if _, ok := want[k]; !ok {
			b.t.Errorf("after %s: %s: the register is %s, and there is no row", after, k, v)
		}
	}
	b.t.Fatalf("after %s: %s\n%s\n%s", after, b.kept(want), b.cli("status"), b.cli("parked"))
}

// kept says which acknowledged write of the other side is not in its row.
func (b *benchPlant) kept(rows map[string]string) string {
	for _, l := range append(b.web[:len(b.web):len(b.web)], b.floor...) {
		last := 0
		for i, ok := range l.acked {
			if ok {
				last = i + 1
			}
		}
		row, v := rows[l.register], 0
		if i := strings.Index(row, `"value":`); i >= 0 {
			fmt.Sscanf(row[i:], `"value":%d`, &v)
		}
		if v < last {
			return fmt.Sprintf("%s: value %d was acknowledged, the row is %s", l.register, last, row)
		}
	}
	return ""
}

// moves waits until both directions have gone on from here.
func (b *benchPlant) moves(what string) {
	b.t.Helper()
	before := [2]string{b.ways(), b.read("branch/1")}
	acked := b.acked.Load()
	eventually(b.t, what+": work goes on", func() bool {
		now := [2]string{b.ways(), b.read("branch/1")}
		return now[0] != before[0] && now[1] != before[1] && b.acked.Load() > acked+10
	})
}

// ways counts the transactions that came by either way; "" while there is no server.
func (b *benchPlant) ways() string {
	b.t.Helper()
	out, err := b.pg.try(b.pg.port, `SELECT count(*) FILTER (WHERE filler = 'direct') > 0 AND count(*) FILTER (WHERE filler = 'through') > 0, count(*) FROM pgbench_history`)
	if err != nil || !strings.HasPrefix(out, "t") {
		return ""
	}
	return out
}

// TestSQLFaults: whatever is killed, dropped or full while pgbench works straight at the server and through the gateway,
// and the other side writes, in the end registers are rows, and every acknowledged write is in its row.
func TestSQLFaults(t *testing.T) {
	kills := 20
	if testing.Short() {
		kills = 5
	}
	disk, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(disk) })
	small := false
	if unmount, err := mountMemory(disk, "512m"); err == nil {
		small = true
		t.Cleanup(func() {
			if err := unmount(); err != nil {
				t.Error(err)
			}
		})
	}
	data, minFree, fill, empty := smallDisk(t)
	b := newBenchPlant(t, newPostgresIn(t, disk), fmt.Sprintf("min_free = %d\n", minFree))
	b.data = data
	b.configure(b.wrappers)
	b.start()
	b.stands(1)
	b.agree("the first contact")
	count := func(name string) float64 {
		return b.metrics()[`spookgw_wrapper_events_total{event="`+name+`",wrapper="erp"}`]
	}

	for _, step := range []struct {
		name string
		do   func()
	}{
		{"the gateway was killed", func() {
			for range kills {
				select {
				case <-time.After(150 * time.Millisecond): // at no moment in particular
				case <-b.done:
					t.Fatalf("spookgw ended by itself: %v", b.err)
				}
				b.kill()
				b.start()
			}
		}},
		{"the server was restarted", func() { b.pg.halt(); b.pg.up() }},
		{"the server was killed", func() {
			for range 3 {
				b.pg.kill()
				b.pg.up()
				b.moves("a killed server")
			}
		}},
		{"the slot was dropped", func() {
			ups := count("feed_up")
			eventually(t, "the slot is gone", func() bool { // the gateway is quick to take it again
				_, err := b.pg.try(b.pg.port, `SELECT pg_terminate_backend(active_pid, 2000) FROM pg_replication_slots WHERE active; SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots`)
				return err == nil
			})
			eventually(t, "the feed stands again", func() bool { return count("feed_up") > ups })
		}},
		{"the publication was dropped", func() {
			ups := count("feed_up")
			b.pg.sql(`SELECT 'DROP PUBLICATION ' || pubname FROM pg_publication \gexec`)
			eventually(t, "the feed stands again", func() bool { return count("feed_up") > ups })
		}},
		{"the gateway's disk was full", func() {
			fill()
			eventually(t, "the feed pauses", func() bool { return count("feed_paused") > 0 })
			empty()
		}},
		{"the server's disk was full", func() {
			if !small {
				t.Log("no file system in memory here: the server's disk is not filled")
				return
			}
			hog := filepath.Join(disk, "hog")
			free, err := freeBytes(disk)
			if err != nil {
				t.Fatal(err)
			}
			if err := reserve(hog, free); err != nil {
				t.Fatal(err)
			}
			full := false
			eventually(t, "the server has no room", func() bool {
				_, err := b.pg.try(b.pg.port, `CREATE TABLE IF NOT EXISTS junk AS SELECT repeat('x', 500) FROM generate_series(1, 20000); SELECT pg_switch_wal();`)
				full = full || err != nil
				select {
				case <-b.pg.done: // it can't write its log
					return true
				default:
					return full
				}
			})
			if err := os.Remove(hog); err != nil {
				t.Fatal(err)
			}
			b.pg.revive()
		}},
	} {
		began := time.Now()
		b.load()
		b.moves("before " + step.name)
		step.do()
		b.moves(step.name)
		b.rest()
		b.agree(step.name)
		t.Logf("%s: %v", step.name, time.Since(began).Round(100*time.Millisecond))
	}
	if n := b.pg.sql("SELECT count(*) FROM pg_replication_slots"); n != "1" {
		t.Errorf("%s slots, want 1", n)
	}
	if out := b.cli("parked"); strings.Contains(out, "account/") {
		t.Errorf("parked: %s", out)
	}
}

// revive waits for a server that may have ended by itself.
func (s *pgServer) revive() {
	s.t.Helper()
	eventually(s.t, "postgres answers", func() bool {
		select {
		case <-s.done:
			s.up()
		default:
		}
		_, err := s.try(s.port, "SELECT 1")
		return err == nil
	})
}
