//! Events from a committed change to their effect, on real services.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

/// Run each of these tests once per transport: both keep the same promises.
macro_rules! on_both_transports {
    ($($name:ident),* $(,)?) => {
        mod amqp {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::house::House::with_rabbitmq().await).await;
                }
            )*
        }

        mod local {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::house::House::in_process().await).await;
                }
            )*
        }
    };
}

mod faults;
mod house;
mod order;
mod outages;
mod parking;
mod promises;
mod traces;
