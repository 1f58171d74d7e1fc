package mqtt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// subscribe keeps the subscriptions as the mapping has them, and the connection alive.
func (f *feed) subscribe(ctx context.Context, list bool) error {
	s := f.side
	ping := time.NewTicker(max(f.c.keep/2, time.Second))
	defer ping.Stop()
	for {
		patterns, changed := s.link.Patterns()
		if err := f.resubscribe(ctx, patterns, list); err != nil {
			return err
		}
		list = true // a changed mapping is held against what the broker has
		wait := true
		for wait {
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
				wait = false
			case <-ping.C:
				if err := f.c.write([]byte{typePingreq << 4, 0}); err != nil {
					return err
				}
			}
		}
	}
}

// filtersKey holds the filters that our session at the broker may have, grantedKey those that it
// has for sure.
const (
	filtersKey = "feed/filters"
	grantedKey = "feed/granted"
)

func (f *feed) resubscribe(ctx context.Context, patterns []wrappers.Pattern, list bool) error {
	want := feedFilters(patterns)
	have, err := f.side.keptFilters(ctx, filtersKey)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.want = want
	f.mu.Unlock()
	if list || !slices.Equal(have, want) {
		gone := slices.DeleteFunc(slices.Clone(have), func(h string) bool { return slices.Contains(want, h) })
		granted, err := f.side.keptFilters(ctx, grantedKey)
		if err != nil {
			return err
		}
		granted = slices.DeleteFunc(granted, func(g string) bool { return !f.c.present || slices.Contains(gone, g) })
		if err := f.side.link.Keep(ctx, filtersRecord(grantedKey, granted)); err != nil {
			return err
		}
		for chunk := range slices.Chunk(gone, 100) {
			sub := subscribe{id: f.subscriptionID()}
			for _, filter := range chunk {
				sub.requests = append(sub.requests, request{filter: filter})
			}
			if err := f.c.write(appendSubscribe(nil, f.c.v5, typeUnsubscribe, &sub)); err != nil {
				return err
			}
		}
		if err := f.side.link.Keep(ctx, filtersRecord(filtersKey, want)); err != nil {
			return err
		}
		if err := f.listRetained(ctx, want); err != nil {
			return err
		}
	}
	f.listed = true
	f.side.ready(f)
	return nil
}

// feedFilters are the topic filters that the mapping needs, none within another: a broker may
// send a message once for each.
func feedFilters(patterns []wrappers.Pattern) []string {
	var all []string
	for _, p := range patterns {
		if p.In {
			all = append(all, patternFilter(p.Segments))
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return slices.DeleteFunc(slices.Clone(all), func(f string) bool {
		return slices.ContainsFunc(all, func(o string) bool { return o != f && covers(o, f) })
	})
}

// listRetained subscribes and takes in what the broker holds already, as a snapshot. A broker
// doesn't say where that ends: it has ended when, everything acknowledged, two PINGREQ in a row
// are answered without the retained message of one more topic before the answer.
func (f *feed) listRetained(ctx context.Context, want []string) error {
	f.mu.Lock()
	f.list = listing{on: true, topics: make(map[uint64]struct{})}
	f.mu.Unlock()
	if err := f.ask(ctx, want); err != nil {
		return err
	}
	if err := f.side.link.Keep(ctx, filtersRecord(grantedKey, want)); err != nil {
		return err
	}
	f.side.owed.set(append([]string{}, want...), true)
	for silent, before := 0, -1; silent < 2 && len(want) > 0; {
		select {
		case <-f.pongs: // of a ping before
		default:
		}
		if err := f.c.write([]byte{typePingreq << 4, 0}); err != nil {
			return err
		}
		select {
		case <-f.pongs:
		case <-time.After(f.side.cfg.Limits.Handshake):
			return errors.New("the broker does not answer PINGREQ")
		case <-ctx.Done():
			return ctx.Err()
		}
		f.mu.Lock()
		now := len(f.list.topics)
		f.mu.Unlock()
		if now != before {
			silent, before = 0, now
			continue
		}
		silent++
		select {
		case <-time.After(quietTime):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.mu.Lock()
	f.list = listing{}
	f.mu.Unlock()
	return f.seen(ctx, wrappers.Position{Feed: true, Snapshot: wrappers.SnapshotEnd}, nil)
}

// quietTime is between the two PINGREQ that end a listing, for brokers that send retained
// messages from another thread than answers.
const quietTime = 100 * time.Millisecond

// subscriptionID gives the next packet identifier for a SUBSCRIBE or UNSUBSCRIBE.
func (f *feed) subscriptionID() uint16 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.subID <= maxPublishID || f.subID == 65535 {
		f.subID = maxPublishID
	}
	f.subID++
	return f.subID
}

// keptFilters reads what filtersRecord made.
func (s *clientSide) keptFilters(ctx context.Context, key string) ([]string, error) {
	for r, err := range s.link.Kept(ctx, key) {
		if err != nil {
			return nil, err
		}
		if r.Key == key && len(r.Value) > 0 {
			return strings.Split(string(r.Value), "\x00"), nil
		}
	}
	return nil, nil
}

func filtersRecord(key string, filters []string) wrappers.Record {
	return wrappers.Record{Key: key, Value: []byte(strings.Join(filters, "\x00"))}
}

// ask subscribes to the filters, RETAIN as published: a clear and an empty message are two things.
// The option is there from the first time on: mosquitto does not change it in a later SUBSCRIBE.
func (f *feed) ask(ctx context.Context, filters []string) error {
	for chunk := range slices.Chunk(filters, 100) {
		sub := subscribe{id: f.subscriptionID()}
		for _, filter := range chunk {
			r := request{filter: filter, options: 1}
			if f.c.v5 {
				r.options = retainAsPublished(r.options)
			}
			sub.requests = append(sub.requests, r)
		}
		if err := f.c.write(appendSubscribe(nil, f.c.v5, typeSubscribe, &sub)); err != nil {
			return err
		}
		select {
		case codes := <-f.codes:
			for i, code := range codes {
				if code >= 0x80 && i < len(chunk) {
					return fmt.Errorf("the broker refuses the gateway's subscription to %q: %s (0x%02x)", chunk[i], reasonNames[code], code)
				}
				if code == 0 && i < len(chunk) {
					f.side.log.Warn("the broker grants QoS 0 only: what is published while the gateway is away is lost", "filter", chunk[i])
				}
			}
		case <-time.After(f.side.cfg.Limits.Handshake):
			return errors.New("the broker does not answer SUBSCRIBE")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// covers tells whether all topics that filter b selects are selected by a.
func covers(a, b string) bool {
	if strings.HasPrefix(b, "$") != strings.HasPrefix(a, "$") {
		return false
	}
	for {
		x, xrest, xmore := strings.Cut(a, "/")
		y, yrest, ymore := strings.Cut(b, "/")
		switch {
		case x == "#":
			return true
		case y == "#" || x != "+" && x != y:
			return false
		case !xmore || !ymore:
			return xmore == ymore || xmore && xrest == "#"
		}
		a, b = xrest, yrest
	}
}
