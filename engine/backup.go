package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

// backupFile stands in a backup, and says what it is one of: [log, ordinal, time in milliseconds, endpoint].
const backupFile = "BACKUP"

// Backup implements State. It is a checkpoint of the storage: files that don't change any more are shared where the file
// system can.
func (e *Engine) Backup(ctx context.Context, dir string) (BackupInfo, error) {
	if err := ctx.Err(); err != nil {
		return BackupInfo{}, err
	}
	if err := e.enter(); err != nil {
		return BackupInfo{}, err
	}
	defer e.leave()
	fs := e.fs()
	if _, err := fs.Stat(dir); err == nil {
		return BackupInfo{}, invalid("%s exists; a backup is made in a directory of its own", dir)
	}
	e.mu.Lock()
	at := e.seqr.ordinal
	e.mu.Unlock()
	if err := e.settleHere(at); err != nil {
		return BackupInfo{}, err
	}
	if err := fs.MkdirAll(fs.PathDir(dir), 0o700); err != nil {
		return BackupInfo{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	// Without the file that says that it is a backup, a copy that broke off is none.
	if err := e.store.Checkpoint(dir); err != nil {
		return BackupInfo{}, fmt.Errorf("%w: backup in %s: %w", ErrUnavailable, dir, err)
	}
	if err := e.copyChunks(dir); err != nil {
		return BackupInfo{}, fmt.Errorf("%w: backup in %s: %w", ErrUnavailable, dir, err)
	}
	info := BackupInfo{Dir: dir, Cursor: Cursor{e.log, at}, Time: e.options.Now().UTC()}
	raw := lattice.AppendArray(nil, 4)
	raw = lattice.AppendUint(lattice.AppendUint(raw, e.log), at)
	raw = lattice.AppendBytes(lattice.AppendInt(raw, info.Time.UnixMilli()), e.origin.Endpoint[:])
	if err := writeFile(fs, dir, backupFile, raw); err != nil {
		return BackupInfo{}, fmt.Errorf("%w: backup in %s: %w", ErrUnavailable, dir, err)
	}
	var err error
	info.Bytes, err = sizeOf(fs, dir)
	return info, err
}

func (e *Engine) fs() vfs.FS {
	if e.options.FS != nil {
		return e.options.FS
	}
	return vfs.Default
}

func writeFile(fs vfs.FS, dir, name string, raw []byte) error {
	f, err := fs.Create(fs.PathJoin(dir, name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return syncDir(fs, dir)
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func readFile(fs vfs.FS, dir, name string) ([]byte, error) {
	f, err := fs.Open(fs.PathJoin(dir, name))
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(f)
	return raw, errors.Join(err, f.Close())
}

func sizeOf(fs vfs.FS, dir string) (total uint64, err error) {
	names, err := fs.List(dir)
	for _, n := range names {
		info, failed := fs.Stat(fs.PathJoin(dir, n))
		if failed != nil {
			return total, failed
		}
		if info.IsDir() {
			below, failed := sizeOf(fs, fs.PathJoin(dir, n))
			total, err = total+below, errors.Join(err, failed)
		} else {
			total += uint64(info.Size())
		}
	}
	return total, err
}

// readBackup says what a directory is a backup of. ErrInvalid: it is none.
func readBackup(fs vfs.FS, dir string) (BackupInfo, error) {
	raw, err := readFile(fs, dir, backupFile)
	if errors.Is(err, os.ErrNotExist) {
		return BackupInfo{}, invalid("%s is no backup, or one that was not finished", dir)
	}
	if err != nil {
		return BackupInfo{}, err
	}
	return parseBackup(dir, raw)
}

func parseBackup(dir string, raw []byte) (BackupInfo, error) {
	r := lattice.NewReader(raw)
	r.Array(4)
	info := BackupInfo{Dir: dir, Cursor: Cursor{r.Uint(), r.Uint()}, Time: time.UnixMilli(r.Int()).UTC()}
	r.Bytes()
	if err := r.End(); err != nil {
		return info, invalid("%s: what it is a backup of can't be read", dir)
	}
	return info, nil
}

// Restore makes a data directory of a backup. The directory must be empty or not there at all. The next start knows that
// it goes on from a backup.
func Restore(backup, data string) error {
	fs := vfs.Default
	if _, err := readBackup(fs, backup); err != nil {
		return err
	}
	if names, err := fs.List(data); err == nil && len(names) > 0 {
		return invalid("%s is not empty: a backup is restored into a directory of its own", data)
	}
	if err := copyTree(fs, backup, data); err != nil {
		return fmt.Errorf("restore into %s: %w", data, err)
	}
	return nil
}

// copyTree copies a directory, the file that says what it is last.
func copyTree(fs vfs.FS, from, to string) error {
	if err := fs.MkdirAll(to, 0o700); err != nil {
		return err
	}
	names, err := fs.List(from)
	if err != nil {
		return err
	}
	for last := range 2 {
		for _, n := range names {
			if (n == backupFile) != (last == 1) || n == "LOCK" {
				continue
			}
			info, err := fs.Stat(fs.PathJoin(from, n))
			if err != nil {
				return err
			}
			if info.IsDir() {
				err = copyTree(fs, fs.PathJoin(from, n), fs.PathJoin(to, n))
			} else {
				err = vfs.Copy(fs, fs.PathJoin(from, n), fs.PathJoin(to, n))
			}
			if err != nil {
				return err
			}
		}
	}
	return errors.Join(syncDir(fs, to), syncDir(fs, fs.PathDir(to)))
}

// meetBackup notices that the directory is a backup, or was made of one: its log is another one from here on, so that no
// cursor of the original means anything in it.
func (e *Engine) meetBackup() error {
	fs := e.fs()
	raw, err := readFile(fs, e.options.Dir, backupFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := parseBackup(e.options.Dir, raw)
	if err != nil {
		return err
	}
	log, err := e.newLog()
	if err != nil {
		return err
	}
	b := e.store.NewBatch()
	if err := errors.Join(b.Set(store.Meta(metaLog), log), e.store.Apply(b, true), b.Close()); err != nil {
		return err
	}
	e.log = binary.BigEndian.Uint64(log)
	e.find(Finding{Code: "backup", Subject: info.Cursor.String(), Text: fmt.Sprintf("the data are those of a backup made at %s, as of commit %d. This node goes on from there under a new incarnation; what was written behind the backup is not here, and is taken back from other nodes where they have it.", info.Time.Format(time.RFC3339), info.Cursor.Ordinal)})
	if err := e.store.Sync(); err != nil {
		return err
	}
	return errors.Join(fs.Remove(fs.PathJoin(e.options.Dir, backupFile)), syncDir(fs, e.options.Dir))
}
