//! Services behind a gateway of another process, with the same configuration.

use serde_json::Value;

use crate::house::House;

#[tokio::test]
async fn an_auth_that_is_away_makes_a_clear_503_and_tokens_go_on_to_be_verified() {
    let mut house = House::full().await;
    let ana = house.register("ana@example.org", "Ana Silva").await;

    house.programs.remove(0).kill();

    let login =
        house.client.post(format!("{}/api/v1/auth/login", house.gateway)).json(&Value::Null).send().await.unwrap();
    assert_eq!(login.status(), 503);
    assert_eq!(login.headers()["content-type"], "application/problem+json");
    assert!(login.headers().contains_key("retry-after"));
    house.create_stream(&ana).await;
}
