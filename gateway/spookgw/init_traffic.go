package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spooksystems/gateway/gateway"
	"github.com/spooksystems/gateway/mapping/propose"
	"github.com/spooksystems/gateway/mapping/recording"
)

// initFromTraffic writes a mapping that is proposed from a recording.
func (a *app) initFromTraffic(ctx context.Context, dir, host, file string) error {
	ops, err := a.recorded(file)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	config, first := filepath.Join(dir, gateway.DefaultFile), filepath.Join(dir, "mappings.d", "traffic.hcl")
	if _, err := os.Lstat(first); err == nil {
		return fmt.Errorf("%s is there already; nothing was written", first)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err = os.Lstat(config)
	fresh := errors.Is(err, fs.ErrNotExist)
	switch {
	case fresh:
	case err != nil:
		return err
	default:
		there, found := gateway.LoadConfig(gateway.LoadRequest{File: config, Protocols: protocols})
		if there == nil {
			return errors.Join(a.findings(found), told)
		}
		ops = notMappedBy(there, ops)
	}
	p := propose.Make(propose.Request{Operations: ops, Protocols: protocols, Name: filepath.Base(file)})
	if p.Registers == 0 {
		for i, l := range p.Left {
			if i == 10 {
				break
			}
			a.say("%s %s (%d): %s", l.Protocol, l.Address, l.Count, l.Why)
		}
		return fmt.Errorf("nothing to propose from %d operations", p.Operations)
	}
	files := overlay{first: []byte(p.HCL)}
	written := []string{first}
	if fresh {
		files[config] = []byte(firstConfig(host, a.answers(ctx, host), wrapperNames(ops)))
		written = append(written, config)
	}
	// Beside what is there it has to hold too.
	loaded, found := gateway.LoadConfig(gateway.LoadRequest{File: config, Protocols: protocols, Sources: files})
	if loaded == nil {
		if err := a.findings(found); err != nil {
			return err
		}
		return errors.New("the proposal does not go with the mappings that are there; nothing was written")
	}
	if err := os.MkdirAll(filepath.Dir(first), 0o755); err != nil {
		return err
	}
	for _, path := range written {
		if err := writeNew(path, string(files[path])); err != nil {
			return err
		}
	}
	if a.json {
		left := p.Left
		if left == nil {
			left = []propose.Left{}
		}
		return a.print(map[string]any{"written": written, "registers": p.Registers, "binds": p.Binds, "operations": p.Operations, "mapped": p.Mapped, "left": left})
	}
	for _, path := range written {
		fmt.Fprintln(a.out, path)
	}
	text := fmt.Sprintf("Register blocks: %d, binds: %d. They map %d of %d operations", p.Registers, p.Binds, p.Mapped, p.Operations)
	if len(p.Left) > 0 {
		text += "; the others stand at the end of " + first
	}
	a.say("%s", text)
	a.say("Next: read it, then spookgw replay --config %s %s", config, file)
	return nil
}

// recorded reads a recording.
func (a *app) recorded(file string) ([]recording.Operation, error) {
	in, err := a.openRecording(file)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	r, err := recording.NewReader(in)
	if err != nil {
		return nil, err
	}
	ops, err := r.All(propose.MaxOperations)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		a.say("%v: what is before it counts", err)
		err = nil
	}
	return ops, err
}

// notMappedBy leaves out what a configuration maps already. What is left has the names of its wrappers.
func notMappedBy(config *gateway.Config, ops []recording.Operation) []recording.Operation {
	var out []recording.Operation
	for _, o := range ops {
		if w := wrapperFor(config.Links(), &o); w != nil {
			if propose.Maps(config.Set, &w.Protocol, w.Name, o.Op()) {
				continue
			}
			o.Wrapper = w.Name
		}
		out = append(out, o)
	}
	return out
}

// wrapperFor is the wrapper of an operation's name, or else the only one of its protocol; nil: none.
func wrapperFor(all []gateway.LinkInfo, o *recording.Operation) *gateway.LinkInfo {
	var only *gateway.LinkInfo
	n := 0
	for i := range all {
		switch w := &all[i]; {
		case w.Protocol.Name != o.Protocol:
		case w.Name == o.Wrapper:
			return w
		default:
			only = w
			n++
		}
	}
	if n != 1 {
		return nil
	}
	return only
}

// wrapperNames are the wrappers of a recording by protocol.
func wrapperNames(ops []recording.Operation) map[string][]string {
	out := map[string][]string{}
	for i := range ops {
		if o := &ops[i]; !slices.Contains(out[o.Protocol], o.Wrapper) {
			out[o.Protocol] = append(out[o.Protocol], o.Wrapper)
		}
	}
	return out
}

// overlay is the disk with some files that are not there yet.
type overlay map[string][]byte

// ReadFile implements gateway.Sources.
func (o overlay) ReadFile(path string) ([]byte, error) {
	if b, ok := o[filepath.Clean(path)]; ok {
		return b, nil
	}
	return gateway.Disk{}.ReadFile(path)
}

// Glob implements gateway.Sources.
func (o overlay) Glob(pattern string) ([]string, error) {
	out, err := gateway.Disk{}.Glob(pattern)
	for path := range o {
		if ok, err := filepath.Match(filepath.Clean(pattern), path); err != nil {
			return nil, err
		} else if ok && !slices.Contains(out, path) {
			out = append(out, path)
		}
	}
	slices.Sort(out)
	return out, err
}
