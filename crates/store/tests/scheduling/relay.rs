//! Messages on their way to the queue.

use super::World;

#[tokio::test]
async fn two_relays_never_hold_the_same_message_and_what_failed_comes_again() {
    let world = World::new().await;
    let tenant = world.tenant(10).await;
    for _ in 0..4 {
        world.started(&tenant).await;
    }
    let first = world.store.take_messages(2).await.unwrap();
    let second = world.store.take_messages(100).await.unwrap();
    assert_eq!((first.messages.len(), second.messages.len()), (2, 2));
    assert!(
        first
            .messages
            .iter()
            .all(|message| !second.messages.contains(message))
    );
    let oldest = first.messages[0].clone();
    // The first relay dies; the second publishes one of its two messages.
    drop(first);
    let published = second.messages[0].id;
    second.published(&[published]).await.unwrap();
    let left = world.store.take_messages(100).await.unwrap();
    assert_eq!(left.messages.len(), 3);
    assert_eq!(left.messages[0], oldest, "in order");
}

#[tokio::test]
async fn a_message_that_nobody_can_read_is_buried_and_does_not_stop_the_next() {
    let world = World::new().await;
    sqlx::query("insert into outbox (id, message, created_at) values (gen_random_uuid(), '{\"kind\": \"from the future\"}', now() - interval '1 hour')")
        .execute(&world.pool)
        .await
        .unwrap();
    let tenant = world.tenant(10).await;
    world.started(&tenant).await;
    let batch = world.store.take_messages(100).await.unwrap();
    assert_eq!((batch.messages.len(), batch.unreadable.len()), (1, 1));
    let published = batch.messages[0].id;
    batch.published(&[published]).await.unwrap();
    assert!(world.store.take_messages(100).await.unwrap().is_empty());
    let (subject, payload): (String, Vec<u8>) =
        sqlx::query_as("select subject, payload from dead_letter")
            .fetch_one(&world.pool)
            .await
            .unwrap();
    assert_eq!(subject, "outbox");
    assert!(
        String::from_utf8(payload)
            .unwrap()
            .contains("from the future")
    );
}
