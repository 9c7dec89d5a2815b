#!/usr/bin/env bash
# Prints the option table of a program, in Markdown, from its own help: options.sh PROGRAM
set -euo pipefail

echo "| flag | what it says | default |"
echo "|---|---|---|"
"$1" -h | awk '
    function row() {
        if (flag == "") return
        default_value = ""
        gsub(/ +/, " ", text)
        sub(/ ?\[env: [^]]*\]/, "", text)
        if (match(text, /\[default: [^]]*\]/)) {
            default_value = substr(text, RSTART + 10, RLENGTH - 11)
            text = substr(text, 1, RSTART - 1) substr(text, RSTART + RLENGTH)
        }
        gsub(/^ | $/, "", text)
        gsub(/\|/, "\\|", flag)
        gsub(/\|/, "\\|", text)
        print "| `" flag "` | " text " |" (default_value == "" ? "" : " " default_value) " |"
        flag = ""
    }
    /^ +(-[a-zA-Z], )?--[a-z-]+/ {
        row()
        match($0, /--[a-z-]+( <[^>]*>)?/)
        flag = substr($0, RSTART, RLENGTH)
        text = substr($0, RSTART + RLENGTH)
        next
    }
    flag != "" { text = text " " $0 }
    END { row() }' | grep -vE '^. .--(help|version). '
