// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package house_test

import (
	"bytes"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rancher-sandbox/guestnet/internal/house"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

const (
	module  = "github.com/rancher-sandbox/guestnet"
	root    = "../.."
	licence = "// Copyright 2026 The guestnet authors.\n// SPDX-License-Identifier: Apache-2.0\n\n"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// files returns the files of the repository, committed or about to be, with
// slashes and relative to its root.
func files(t *testing.T) []string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(root, ".git")); err != nil {
		house.Missing(t, "not a git clone, so there is no list of files: git clone the repository")
	}
	list := strings.Split(run(t, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"), "\x00")
	return slices.DeleteFunc(list, func(name string) bool {
		_, err := os.Lstat(filepath.Join(root, name))
		return name == "" || err != nil // deleted, and not yet committed
	})
}

// run returns what a command prints that is run at the root of the repository.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	house.WineLacks(t, "the program "+name)
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Stderr = root, &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s %s: %s", name, strings.Join(args, " "), &stderr)
	return string(out)
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, name))
	require.NoError(t, err)
	return content
}

func TestFilesAreSource(t *testing.T) {
	for _, name := range files(t) {
		content := read(t, name)
		if bytes.IndexByte(content, 0) >= 0 {
			t.Errorf("%s is binary: the repository holds source only", name)
		}
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		if !bytes.HasPrefix(content, []byte(licence)) {
			t.Errorf("%s does not begin with the two licence lines and an empty one", name)
		}
		if formatted, err := format.Source(content); err != nil || !bytes.Equal(formatted, content) {
			t.Errorf("%s is not formatted: make fmt (%v)", name, err)
		}
		limit := 500
		if strings.HasSuffix(name, "_test.go") {
			limit = 800
		}
		if lines := bytes.Count(content, []byte("\n")); lines > limit {
			t.Errorf("%s has %d lines, more than %d: does it hold more than one thing?", name, lines, limit)
		}
	}
}

// A folder is what the tests below ask of one package and its tests.
type folder struct {
	name, doc    string // of the package
	docs         int    // package comments
	tests        bool
	leaksChecked bool
	examples     bool
	parsed       []*ast.File // without tests
}

func (f folder) public(dir string) bool {
	return f.name != "main" && dir != "." && !strings.Contains("/"+dir+"/", "/internal/") && len(f.parsed) > 0
}

// folders returns every folder that holds Go source.
func folders(t *testing.T) (map[string]*folder, *token.FileSet) {
	t.Helper()
	all, fset := map[string]*folder{}, token.NewFileSet()
	for _, name := range files(t) {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		file, err := parser.ParseFile(fset, name, read(t, name), parser.ParseComments)
		require.NoError(t, err)
		f := all[path.Dir(name)]
		if f == nil {
			f = &folder{}
			all[path.Dir(name)] = f
		}
		if strings.HasSuffix(name, "_test.go") {
			f.tests = true
			f.test(file)
			continue
		}
		f.name, f.parsed = file.Name.Name, append(f.parsed, file)
		if file.Doc != nil {
			f.docs++
			f.doc = file.Doc.Text()
		}
	}
	return all, fset
}

// test notes what a test file brings.
func (f *folder) test(file *ast.File) {
	for _, decl := range file.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		f.examples = f.examples || strings.HasPrefix(fn.Name.Name, "Example")
		if fn.Name.Name != "TestMain" {
			continue
		}
		ast.Inspect(fn, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			f.leaksChecked = f.leaksChecked || ok && sel.Sel.Name == "VerifyTestMain"
			return true
		})
	}
}

func TestPackagesAreDocumented(t *testing.T) {
	all, _ := folders(t)
	for dir, f := range all {
		if len(f.parsed) == 0 {
			continue
		}
		if f.docs != 1 {
			t.Errorf("%s has %d package comments, want one", dir, f.docs)
		}
		if want := "Package " + f.name + " "; f.name != "main" && !strings.HasPrefix(f.doc, want) {
			t.Errorf("the package comment of %s does not begin with %q", dir, want)
		}
		if f.public(dir) && !f.examples {
			t.Errorf("%s is public and has no Example", dir)
		}
	}
}

func TestLeaksAreCheckedEverywhere(t *testing.T) {
	all, _ := folders(t)
	for dir, f := range all {
		if f.tests && !f.leaksChecked {
			t.Errorf("%s has tests and no TestMain that calls goleak.VerifyTestMain", dir)
		}
	}
}
