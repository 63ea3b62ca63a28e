// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package house_test

import (
	"go/ast"
	"go/build"
	"go/doc"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSameAPIEverywhere: a program that compiles on one system compiles on the
// others. What a system lacks, it answers with errors.ErrUnsupported.
func TestSameAPIEverywhere(t *testing.T) {
	all, _ := folders(t)
	for dir, f := range all {
		if !f.public(dir) {
			continue
		}
		want := exported(t, dir, "linux")
		for _, system := range []string{"windows", "darwin", "freebsd"} {
			require.Equal(t, want, exported(t, dir, system), "%s: linux (want) and %s (got)", dir, system)
		}
	}
}

// exported lists what a package exports on a system, one declaration a line,
// without the names of parameters.
func exported(t *testing.T, dir, system string) string {
	t.Helper()
	ctx := build.Default
	ctx.GOOS, ctx.GOARCH, ctx.CgoEnabled = system, "amd64", false
	entries, err := os.ReadDir(filepath.Join(root, dir))
	require.NoError(t, err)
	var parsed []*ast.File
	fset := token.NewFileSet()
	for _, entry := range entries {
		name := entry.Name()
		match, err := ctx.MatchFile(filepath.Join(root, dir), name)
		require.NoError(t, err)
		if !match || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, filepath.Join(root, dir, name), nil, parser.ParseComments)
		require.NoError(t, err)
		parsed = append(parsed, file)
	}
	pkg, err := doc.NewFromFiles(fset, parsed, module+"/"+dir)
	require.NoError(t, err)

	var lines []string
	add := func(parts ...string) { lines = append(lines, strings.Join(parts, " ")) }
	values := func(values []*doc.Value) {
		for _, v := range values {
			for _, name := range v.Names {
				add(v.Decl.Tok.String(), name)
			}
		}
	}
	functions := func(functions []*doc.Func) {
		for _, f := range functions {
			add("func", f.Recv, f.Name, signature(f.Decl.Type))
		}
	}
	values(pkg.Consts)
	values(pkg.Vars)
	functions(pkg.Funcs)
	for _, typ := range pkg.Types {
		values(typ.Consts)
		values(typ.Vars)
		functions(typ.Funcs)
		functions(typ.Methods)
		for _, spec := range typ.Decl.Specs {
			members(spec.(*ast.TypeSpec), add)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// members lists a type with its exported fields or methods; go/doc has taken
// the others out.
func members(spec *ast.TypeSpec, add func(...string)) {
	var fields *ast.FieldList
	switch typ := spec.Type.(type) {
	case *ast.StructType:
		fields = typ.Fields
	case *ast.InterfaceType:
		fields = typ.Methods
	default:
		add("type", spec.Name.Name, text(typ))
		return
	}
	add("type", spec.Name.Name)
	for _, field := range fields.List {
		if field.Names == nil {
			add("embedded", spec.Name.Name, text(field.Type))
		}
		for _, name := range field.Names {
			add("member", spec.Name.Name, name.Name, text(field.Type))
		}
	}
}

func text(expr ast.Expr) string {
	if fn, ok := expr.(*ast.FuncType); ok {
		return signature(fn)
	}
	return types.ExprString(expr)
}

func signature(fn *ast.FuncType) string {
	return "(" + list(fn.Params) + ") (" + list(fn.Results) + ")"
}

func list(fields *ast.FieldList) string {
	if fields == nil {
		return ""
	}
	var all []string
	for _, field := range fields.List {
		for range max(1, len(field.Names)) {
			all = append(all, text(field.Type))
		}
	}
	return strings.Join(all, ", ")
}
