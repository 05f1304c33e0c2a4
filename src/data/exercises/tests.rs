use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use super::*;

#[test]
fn every_family_file_is_compiled_in() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/exercises");
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    found.sort();
    let named: BTreeSet<&str> =
        FILES.iter().chain(REPHRASED).chain([&COMMON, &WITHHELD]).map(|(name, _)| *name).collect();
    assert_eq!(found, named.into_iter().collect::<Vec<_>>());
}

#[test]
fn family_names_are_unique_over_all_files() {
    let names: BTreeSet<&str> = families().iter().map(|family| family.name.as_str()).collect();
    assert_eq!(names.len(), families().len());
}

#[test]
fn the_same_seed_gives_the_same_samples_and_a_smaller_count_a_prefix() {
    let many = generate(7, 300, &[]).unwrap();
    assert_eq!(many, generate(7, 300, &[]).unwrap());
    assert_eq!(many[..120], generate(7, 120, &[]).unwrap()[..]);
    assert_ne!(many, generate(8, 300, &[]).unwrap());
}

#[test]
fn samples_are_distinct_and_have_the_layout_of_a_task() {
    let tasks = generate(1, 3000, &[]).unwrap();
    assert_eq!(tasks.len(), 3000);
    let texts: BTreeSet<String> = tasks.iter().map(|task| format!("{}{}", task.prompt, task.solution)).collect();
    assert_eq!(texts.len(), tasks.len());
    for task in &tasks {
        assert!(task.prompt.contains(&format!("def {}(", task.entry_point)), "{}", task.prompt);
        assert!(task.prompt.ends_with("\"\"\"\n"), "{}", task.prompt);
        assert!(task.solution.starts_with("    ") && !task.solution.starts_with("     "), "{}", task.solution);
        assert!(task.solution.ends_with('\n') && !task.solution.ends_with("\n\n"), "{}", task.solution);
        assert!(!task.prompt.contains(['\t', '\r']) && !task.solution.contains(['\t', '\r']));
    }
}

#[test]
fn files_can_be_chosen_and_a_stranger_is_named() {
    let chosen = generate(3, 200, &["compositions".to_owned()]).unwrap();
    let own: BTreeSet<&str> = families().iter().filter(|f| f.file == "compositions").map(|f| f.name.as_str()).collect();
    let family = |task: &Task| task.provenance.as_ref().unwrap().original_id.split(' ').next().unwrap().to_owned();
    assert!(own.len() > 5 && chosen.iter().all(|task| own.contains(family(task).as_str())));
    let message = generate(3, 1, &["compositons".to_owned()]).unwrap_err().to_string();
    assert!(message.contains("compositons") && message.contains("arithmetic"), "{message}");
}

#[test]
fn no_family_dominates() {
    // A round is as long as all families are broad, and grows with the files.
    let round: f64 = families().iter().map(|family| Stream::new(family, 2).breadth).sum();
    let tasks = generate(2, (1.5 * round) as usize, &[]).unwrap();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for task in &tasks {
        let choice = &task.provenance.as_ref().unwrap().original_id;
        *counts.entry(choice.split(' ').next().unwrap()).or_default() += 1;
    }
    assert_eq!(counts.len(), families().len(), "every family takes part");
    let mean = tasks.len() as f64 / families().iter().map(|family| family.weight).sum::<f64>();
    for family in families() {
        assert!(counts[family.name.as_str()] as f64 <= 5.0 * mean.max(1.0) * family.weight, "{counts:?}");
    }
}

#[test]
fn families_take_turns() {
    let able = families().iter().filter(|family| Stream::new(family, 5).breadth >= 1.0).count();
    let tasks = generate(5, able, &[]).unwrap();
    let family = |task: &Task| task.provenance.as_ref().unwrap().original_id.split(' ').next().unwrap().to_owned();
    let met: BTreeSet<String> = tasks.iter().map(family).collect();
    assert!(able > 100 && met.len() > able * 9 / 10, "{} of {able} families in as many samples", met.len());
}

#[test]
fn a_broken_family_is_named_with_its_line() {
    let text = "[[family]]\nname = \"broken\"\ncategory = \"loops\"\n[[family.form]]\nnames = [\"f_{x}\"]\nargs = \"\"\n\
                returns = \"int\"\ndocs = [\"d\"]\nbodies = [\"return 1\"]\ntests = [\"a\", \"b\", \"c\", \"d\"]\n";
    let message = family::parse(Path::new("x.toml"), text, &Common::default()).unwrap_err().to_string();
    assert!(message.contains("x.toml:2") && message.contains("broken") && message.contains("{x}"), "{message}");
}

#[test]
fn names_of_the_benchmark_are_refused() {
    let refused = &catalogue().refused;
    assert!(refused.len() == 20 && refused.contains("isprime") && !refused.contains("clamp"), "{refused:?}");
    assert!(generate(4, 4000, &[]).unwrap().iter().all(|task| !refused.contains(&plain(&task.entry_point))));
}

#[test]
fn a_withheld_choice_is_never_drawn_and_must_exist() {
    let family = families().iter().find(|family| family.name == "skip_some").unwrap();
    let index = |slot: &str, word: &str| family.slots[slot].iter().position(|row| row["name"] == word).unwrap();
    let (sum, zeros) = (index("agg", "sum"), index("skip", "skip_zeros"));
    assert!(family.withheld.iter().any(|rows| rows["agg"] == "sum" && rows["skip"] == "skip_zeros"));
    let drawn = generate(4, 3000, &["loops".to_owned()]).unwrap();
    let choices = drawn.iter().map(|task| task.provenance.as_ref().unwrap().original_id.as_str());
    let of_family: Vec<&str> = choices.filter(|choice| choice.starts_with("skip_some ")).collect();
    assert!(of_family.len() > 20, "{of_family:?}");
    let withheld =
        |choice: &&&str| choice.contains(&format!(" agg={sum} ")) && choice.contains(&format!(" skip={zeros} "));
    assert_eq!(of_family.iter().filter(withheld).count(), 0);
    let neighbours = of_family.iter().filter(|choice| choice.contains(&format!(" skip={zeros} "))).count();
    assert!(neighbours > 0, "the other aggregates of the same numbers are drawn");

    let stale = "[[withheld]]\ntask = \"gcd\"\nfamily = \"skip_some\"\nrows = { agg = \"no such row\" }\n";
    let message = withheld::withhold(Path::new("w.toml"), stale, &mut families().to_vec()).unwrap_err().to_string();
    assert!(message.contains("w.toml") && message.contains("no such row"), "{message}");
}

#[test]
fn rephrased_rows_keep_their_functions_and_their_withheld_choices() {
    let text =
        "[course_list_total.product_of_numbers]\nnames = [\"product\"]\ndocs = [\"Multiply everything in {nums}.\"]\n";
    let mut known = families().to_vec();
    let original = known.iter_mut().find(|family| family.name == "course_list_total").unwrap();
    original.withheld.push(BTreeMap::from([("task".to_owned(), "product_of_numbers".to_owned())]));
    let again = rephrase::rephrase(Path::new("r.toml"), text, &known).unwrap().remove(0);
    assert_eq!(again.name, "course_list_total_rephrased");
    assert_eq!(again.slots["task"].len(), 1);
    assert_eq!(again.operator_combinations(), 0, "its one row is withheld from the original");

    let mut original = families().iter().find(|family| family.name == "course_list_total").unwrap().clone();
    original.withheld.clear();
    let again = rephrase::rephrase(Path::new("r.toml"), text, &[original]).unwrap().remove(0);
    let mut rng = seed::rng(1, "rephrased");
    let drawn: Vec<draw::Drawn> = (0..60).filter_map(|_| draw::draw(&again, &BTreeSet::new(), &mut rng)).collect();
    let says = |text: &str| drawn.iter().filter(|drawn| drawn.prompt.contains(text)).count();
    assert!(drawn.len() > 40 && says("everything in") == drawn.len(), "{}", drawn[0].prompt);
    assert!(says("def product(") > 0 && says("def product_of_numbers(") > 0 && says(">>> ") > 0);

    let fault = |text: &str| rephrase::rephrase(Path::new("r.toml"), text, families()).unwrap_err().to_string();
    let message = fault(&text.replace("product_of_numbers", "no_such_row"));
    assert!(message.contains("r.toml:1") && message.contains("no_such_row"), "{message}");
    assert!(fault(&text.replace("{nums}", "{no_such_word}")).contains("no_such_word"));
    assert!(fault(&text.replace("course_list_total", "no_such_family")).contains("no such family"));
}

/// Writes samples for `tests/golden/check_exercises.py`: set `CODELORA_EXERCISES` to the file and, if wanted,
/// `CODELORA_EXERCISES_COUNT`.
#[test]
#[ignore = "writes a file for the independent checker"]
fn write_samples() {
    let Some(path) = std::env::var_os("CODELORA_EXERCISES") else { return };
    let count = std::env::var("CODELORA_EXERCISES_COUNT").ok().and_then(|text| text.parse().ok()).unwrap_or(5000);
    let start = Instant::now();
    let tasks = generate(17, count, &[]).unwrap();
    let rate = tasks.len() as f64 / start.elapsed().as_secs_f64();
    let operators: u64 = families().iter().map(Family::operator_combinations).sum();
    println!(
        "{} families, {operators} operator combinations, {} samples, {rate:.0} a second",
        families().len(),
        tasks.len()
    );
    let lines: Vec<String> = tasks.iter().map(|task| serde_json::to_string(task).unwrap() + "\n").collect();
    std::fs::write(path, lines.concat()).unwrap();
}
