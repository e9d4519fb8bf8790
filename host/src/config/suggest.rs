//! Near names for a misspelt one.

/// The candidate that was most likely meant: one that differs by a letter or two, or shares its beginning.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let distance = strsim::damerau_levenshtein(&wrong, candidate);
            let allowed = (wrong.chars().count().max(candidate.chars().count()) / 3).max(1);
            let begins = candidate.len() >= 3
                && wrong.len() >= 3
                && (wrong.starts_with(candidate) || candidate.starts_with(&wrong));
            (distance <= allowed || begins).then_some((distance, candidate))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// `did you mean …?` if something is near, else the list, else nothing.
pub fn help<'a>(
    wrong: &str,
    what: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<String> {
    if let Some(near) = nearest(wrong, candidates.clone()) {
        return Some(format!("did you mean `{near}`?"));
    }
    let list = list(candidates);
    (!list.is_empty()).then(|| format!("{what}: {list}"))
}

/// `` `a`, `b`, `c` ``, cut after twenty.
pub fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|n| format!("`{n}`")).collect();
    let more = if names.len() > 20 { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(20)].join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_found_and_a_far_one_is_not() {
        assert_eq!(nearest("partitons", ["partitions", "segment"]), Some("partitions"));
        assert_eq!(nearest("integer", ["int", "string"]), Some("int"));
        assert_eq!(nearest("JSON", ["json", "bytes"]), Some("json"));
        assert_eq!(nearest("text", ["string", "int"]), None);
        assert_eq!(nearest("x", ["y"]), Some("y"));
    }

    #[test]
    fn without_a_near_name_all_are_listed() {
        assert_eq!(help("zzz", "known", ["alpha", "beta"]), Some("known: `alpha`, `beta`".to_string()));
        assert_eq!(help("zzz", "known", []), None);
    }
}
