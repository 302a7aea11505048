use fanout::{Code, Limits};
use logstore::id::{ConversationId, UserId};

use crate::world::{World, id_now};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registered_account_signs_in_with_its_password_only() {
    let world = World::new().await;
    let accounts = &world.services.accounts;
    let registered = accounts.register("ann", "correct horse", id_now()).await.unwrap();
    let signed_in = accounts.login("ann", "correct horse").await.unwrap();
    assert_eq!(signed_in.user, registered.user);
    assert_ne!(signed_in.session, registered.session);
    for (name, password) in [("ann", "wrong horse"), ("ben", "correct horse"), ("ann", ""), ("", "correct horse")] {
        assert_eq!(accounts.login(name, password).await.unwrap_err().code, Code::BadCredentials, "{name} {password}");
    }
    assert_eq!(
        accounts.find_names(&["ann".into(), "ben".into()]).await.unwrap(),
        vec![(registered.user, "ann".into())]
    );
    assert_eq!(accounts.find_ids(&[registered.user, UserId(5)]).await.unwrap(), vec![(registered.user, "ann".into())]);
    assert_eq!(accounts.find_ids(&[UserId(0), UserId(u64::MAX)]).await.unwrap(), vec![]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_registration_is_the_same_and_only_for_who_knows_the_password() {
    let world = World::new().await;
    let accounts = &world.services.accounts;
    let request = id_now();
    let first = accounts.register("ann", "correct horse", request).await.unwrap();
    let again = accounts.register("ann", "correct horse", request).await.unwrap();
    assert_eq!(again.user, first.user);
    let thief = accounts.register("ann", "another horse", request).await.unwrap_err();
    assert_eq!(thief.code, Code::BadCredentials);
    let other = accounts.register("ann", "correct horse", id_now()).await.unwrap_err();
    assert_eq!(other.code, Code::NameTaken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_who_want_one_name_do_not_both_get_it() {
    let world = World::new().await;
    let accounts = &world.services.accounts;
    let (a, b) = tokio::join!(
        accounts.register("ann", "first password", id_now()),
        accounts.register("ann", "second password", id_now()),
    );
    let codes: Vec<Option<Code>> = [&a, &b].map(|r| r.as_ref().err().map(|fault| fault.code)).to_vec();
    assert!(codes == [None, Some(Code::NameTaken)] || codes == [Some(Code::NameTaken), None], "{codes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_secret_works_once_and_its_second_use_ends_the_session() {
    let world = World::new().await;
    let accounts = &world.services.accounts;
    let first = accounts.register("ann", "correct horse", id_now()).await.unwrap();
    let second = accounts.refresh(first.user, first.session, first.secret).await.unwrap();
    assert_eq!((second.user, second.session, second.name.as_str()), (first.user, first.session, "ann"));
    assert_ne!(second.secret, first.secret);
    for secret in [first.secret, second.secret] {
        let over = accounts.refresh(first.user, first.session, secret).await.unwrap_err();
        assert_eq!(over.code, Code::SessionOver);
    }
    for user in [UserId(0), UserId(77), UserId(u64::MAX), UserId(ConversationId::ID_LIMIT)] {
        assert_eq!(accounts.refresh(user, 1, [0; 32]).await.unwrap_err().code, Code::SessionOver);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_passwords_outside_the_table_are_refused() {
    let world = World::new().await;
    let accounts = &world.services.accounts;
    for name in ["", "a/b", " ann", &"x".repeat(65)] {
        assert_eq!(accounts.register(name, "correct horse", id_now()).await.unwrap_err().code, Code::BadName);
    }
    for password in ["short", &"x".repeat(1025)] {
        assert_eq!(accounts.register("ann", password, id_now()).await.unwrap_err().code, Code::BadPassword);
    }
    assert_eq!(accounts.login("ann", &"x".repeat(100_000)).await.unwrap_err().code, Code::BadCredentials);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_up_names_as_many_as_the_table_says() {
    let world = World::with_limits(fanout::Limits { find_users: 2, ..Default::default() }).await;
    let [ann, ben, cam] = world.users(["ann", "ben", "cam"]).await;
    let accounts = &world.services.accounts;
    let names = ["ann", "nobody", "cam"].map(str::to_owned);
    assert_eq!(accounts.find_names(&names[..2]).await.unwrap(), [(ann, "ann".to_owned())]);
    assert_eq!(accounts.find_names(&names).await.unwrap_err().code, Code::TooMany);
    assert_eq!(accounts.find_ids(&[ben, cam]).await.unwrap().len(), 2);
    assert_eq!(accounts.find_ids(&[ann, ben, cam]).await.unwrap_err().code, Code::TooMany);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_accounts_are_imported_at_once_and_again_to_the_same() {
    let world = World::new().await;
    let names: Vec<(String, String)> = (0..3000).map(|n| (format!("user-{n}"), String::new())).collect();
    let started = std::time::Instant::now();
    let users: Vec<UserId> =
        world.services.accounts.import(names.clone()).await.into_iter().map(Result::unwrap).collect();
    println!("3,000 accounts in {:?}", started.elapsed());
    let mut distinct = users.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), users.len());
    let again: Vec<UserId> = world.services.accounts.import(names).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(again, users);
    assert_eq!(world.services.accounts.find_ids(&users[..500]).await.unwrap().len(), 500);
    assert_eq!(world.services.accounts.find_ids(&users[..501]).await.unwrap_err().code, Code::TooMany);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_answers_each_input_for_itself() {
    let world = World::new().await;
    let ann = world.services.accounts.register("ann", "correct horse", id_now()).await.unwrap();
    let phc = "$argon2id$v=19$m=19456,t=2,p=1$c2tlaW4ubm9ib2R5LnNhbHQ$2QmO2jBzXG7l2n4Tq0m1c1VdJm9iG7hQm3d1mYxk0yE";
    let dear = phc.replace("m=19456", "m=4000000");
    let inputs = [("ann", ""), ("", ""), ("ben", "plain text"), ("cam", phc), ("cam", phc), ("dee", &dear)];
    let inputs = inputs.map(|(name, phc)| (name.to_string(), phc.to_string())).to_vec();
    let answers = world.services.accounts.import(inputs).await;
    let codes: Vec<Option<Code>> = answers.iter().map(|a| a.as_ref().err().map(|f| f.code)).collect();
    assert_eq!(codes, [None, Some(Code::BadName), Some(Code::BadField), None, None, Some(Code::BadField)]);
    assert_eq!(answers[0], Ok(ann.user));
    assert_eq!(answers[3], answers[4]);
    let unknown = world.services.accounts.login("ben", "plain text").await.unwrap_err();
    assert_eq!(unknown.code, Code::BadCredentials);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_signs_in_to_an_account_without_a_password() {
    let world = World::new().await;
    world.users(["ann"]).await;
    for password in ["", "anything at all"] {
        let fault = world.services.accounts.login("ann", password).await.unwrap_err();
        assert_eq!(fault.code, Code::BadCredentials);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_passwords_than_may_wait_are_told_to_come_back() {
    let world = World::with_limits(Limits { password_queue: 1, ..Limits::default() }).await;
    let accounts = &world.services.accounts;
    let cores = std::thread::available_parallelism().unwrap().get();
    let attempts = (0..cores + 8).map(|_| accounts.login("nobody", "some password"));
    let faults: Vec<_> = futures_join(attempts).await.into_iter().map(Result::unwrap_err).collect();
    let busy = faults.iter().filter(|fault| fault.code == Code::Busy).count();
    assert!(busy > 0 && busy < faults.len(), "{faults:?}");
    assert!(faults.iter().filter(|f| f.code == Code::Busy).all(|f| !f.retry_after.is_zero()));
}

/// Polls all at once; gives the outputs in order.
async fn futures_join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let std::task::Poll::Ready(done) = future.as_mut().poll(context)
            {
                *output = Some(done);
            }
        }
        if outputs.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
