package virtual

import (
	"encoding/binary"
	"strings"
	"sync"
	"time"

	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

// plans are translated statements, kept for their text and shared by all sessions: drivers of one program prepare the
// same ones. A Statement does not change once it is made.
type plans struct {
	mu sync.Mutex
	// Of two halves the older one goes when the newer one is full, and what is used moves to the newer one.
	fresh, old map[planKey]*pgsql.Statement
}

// circumstances are what a translation depends on, beside its text.
type circumstances struct {
	schema *schema
	zone   *time.Location
	path   string
}

type planKey struct {
	circumstances
	sql, types string
}

// Bounds of what is kept.
const (
	mostPlans    = 512 // in each half
	mostPlanText = 4 << 10
)

func (p *plans) get(k planKey) *pgsql.Statement {
	p.mu.Lock()
	defer p.mu.Unlock()
	if st := p.fresh[k]; st != nil {
		return st
	}
	st := p.old[k]
	if st != nil {
		p.putLocked(k, st)
	}
	return st
}

func (p *plans) put(k planKey, st *pgsql.Statement) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.putLocked(k, st)
}

func (p *plans) putLocked(k planKey, st *pgsql.Statement) {
	if p.fresh == nil || len(p.fresh) >= mostPlans {
		p.fresh, p.old = map[planKey]*pgsql.Statement{}, p.fresh
	}
	p.fresh[k] = st
}

// forget drops what was made for tables that are gone.
func (p *plans) forget() {
	p.mu.Lock()
	p.fresh, p.old = nil, nil
	p.mu.Unlock()
}

// circumstances are those of the session now.
func (se *session) circumstances() circumstances {
	if path, _ := se.settings.show("search_path"); path != se.asked {
		se.asked, se.meant = path, path
		if strings.Contains(path, "$user") {
			se.meant += "\x00" + se.user
		}
	}
	return circumstances{se.schema(), se.settings.zone, se.meant}
}

// translate gives the statement behind a text.
func (se *session) translate(sql string, types []pgsql.OID) (*pgsql.Statement, error) {
	k := planKey{circumstances: se.circumstances(), sql: sql}
	if len(types) > 0 {
		b := make([]byte, 0, 4*len(types))
		for _, o := range types {
			b = binary.BigEndian.AppendUint32(b, uint32(o))
		}
		k.types = string(b)
	}
	keep := len(sql)+len(k.types) <= mostPlanText
	if keep {
		if st := se.server.plans.get(k); st != nil {
			return st, nil
		}
	}
	st, err := pgsql.Translate(sql, pgsql.Options{Catalog: finder{k.schema, se.path()}, Zone: k.zone, Params: types})
	if err == nil && keep {
		se.server.plans.put(k, st)
	}
	return st, err
}
