//! What comes to a node by itself gets what a round for all would give it.

use std::{collections::BTreeSet, fmt::Write as _, path::Path};

use super::{CONFIG, bare, inputs};
use crate::{
    config,
    desired::{Inputs, desired, for_endpoint},
    model::Model,
    objects::Objects,
    plan::plan,
    state::Content,
    surroundings::{EndpointPlace, Observed},
};

/// A node with one endpoint and so many more.
fn model(more: usize) -> Model {
    let mut text = CONFIG.to_owned();
    for number in 0..more {
        write!(
            text,
            "[[endpoints]]\nname = \"more{number}\"\nnetwork = \"lab\"\nnetns = \"more{number}\"\n"
        )
        .unwrap();
    }
    config::parse(Path::new("t.toml"), &text).unwrap()
}

fn with<T>(model: &Model, observed: &Observed, ask: impl FnOnce(Inputs<'_>) -> T) -> T {
    let mut store = Content::new("n1".parse().unwrap());
    store.allocate(model);
    ask(inputs(model, &store, observed))
}

/// A node that has all that it should.
fn settled(model: &Model) -> Observed {
    let mut observed = bare();
    observed.objects = with(model, &bare(), |inputs| desired(inputs).unwrap().objects);
    observed
}

#[test]
fn one_endpoint_more_takes_the_steps_of_a_round_whatever_else_is_there() {
    let mut numbers = Vec::new();
    for others in [0, 100] {
        let (before, after) = (settled(&model(others)), model(others + 1));
        let new = after.endpoints.last().unwrap();
        let all = with(&after, &before, |inputs| desired(inputs).unwrap().objects);
        let alone = with(&after, &before, |inputs| for_endpoint(inputs, new).unwrap());

        let steps = plan(&Objects::default(), &alone);
        assert_eq!(steps.to_string(), plan(&before.objects, &all).to_string());
        numbers.push(steps.steps().len());

        let mut completed = before.objects;
        completed.extend_by_endpoint(alone);
        assert_eq!(plan(&completed, &all).to_string(), "");
    }
    assert_eq!(numbers[0], numbers[1]);
}

#[test]
fn what_is_not_as_usual_is_left_to_a_round() {
    let (mut before, after) = (settled(&model(0)), model(1));
    let new = after.endpoints.last().unwrap();
    let is_made = |observed: &Observed| {
        with(&after, observed, |inputs| {
            for_endpoint(inputs, new).is_some()
        })
    };
    assert!(is_made(&before));
    let places = &mut before.around.endpoints;
    places.insert(new.name.clone(), EndpointPlace::Node);
    assert!(!is_made(&before));
    before.around.endpoints.clear();
    before.around.links.clear();
    assert!(!is_made(&before));
}

#[test]
fn one_that_is_late_is_the_kernel_s_in_both_directions() {
    let (before, after) = (settled(&model(0)), model(1));
    let new = after.endpoints.last().unwrap();
    let names = BTreeSet::from([new.name.clone()]);
    let made = |late| {
        with(&after, &before, |inputs| {
            let inputs = Inputs { late, ..inputs };
            let alone = for_endpoint(inputs, new).unwrap();
            let all = desired(inputs).unwrap().objects;
            let mut completed = before.objects.clone();
            completed.extend_by_endpoint(alone.clone());
            assert_eq!(plan(&completed, &all).to_string(), "");
            alone
        })
    };
    let (later, now) = (made(Some(&names)), made(None));
    assert!(later.attachments.is_empty() && now.attachments.len() == 2);
    let hooked = |objects: &Objects| {
        let mut rows = objects.entries.endpoints.values();
        rows.all(|row| row.hooked)
    };
    assert!(hooked(&later) && !hooked(&now));
    // Both programs, and the rows of both directions.
    let steps = plan(&later, &now).to_string();
    assert_eq!(steps.lines().count(), 4, "{steps}");
    assert_eq!((&later.links, &later.routes), (&now.links, &now.routes));
}
