# shellcheck shell=bash
# What the program is made of beside our own crates, and the licences that come with it.

# third_party_crates: a line for each crate of others in the program: name, version, directory, licence.
third_party_crates() {
    local inside
    inside=$(cd "$REPOSITORY_DIR" && cargo tree --locked --package vhost-user-iscsi --edges normal \
        --prefix none --format '{p}' | cut --delimiter=' ' --fields=1,2 | sort --unique)
    (cd "$REPOSITORY_DIR" && cargo metadata --locked --format-version 1) |
        jq --raw-output '.packages[] | select(.source) |
            "\(.name) v\(.version) \(.manifest_path | rtrimstr("/Cargo.toml")) \(.license // "see its files")"' |
        awk -v inside="$inside" 'BEGIN { n = split(inside, lines, "\n"); for (i = 1; i <= n; i++) wanted[lines[i]] }
            ($1 " " $2) in wanted' | sort
}

# third_party_licences DIRECTORY: their texts, each once; DIRECTORY is for its notes.
third_party_licences() {
    local name version directory licence file sum number
    local -A numbers=()
    echo "The crates of others in vhost-user-iscsi. The texts that come with them follow, by number."
    echo
    while read -r name version directory licence; do
        printf '%s %s: %s\n' "$name" "${version#v}" "$licence"
        for file in "$directory"/{LICEN[CS]E,COPY,NOTICE}*; do
            [[ -f $file ]] || continue
            sum=$(sha256sum <"$file")
            if [[ -z ${numbers[$sum]:-} ]]; then
                number=$((${#numbers[@]} + 1))
                numbers[$sum]=$number
                cp "$file" "$1/$number"
            fi
            printf '    %s: text %d\n' "${file##*/}" "${numbers[$sum]}"
        done
    done < <(third_party_crates)
    for ((number = 1; number <= ${#numbers[@]}; number++)); do
        printf '\n======== text %d\n\n' "$number"
        cat "$1/$number"
    done
}
