//! The README's walk-through, word for word.

use testkit::Program;

use crate::house::House;

#[tokio::test]
async fn the_walk_through_of_the_readme_works_word_for_word() {
    let house = House::embedded().await;
    let readme = std::fs::read_to_string(testkit::workspace().join("README.md")).unwrap();
    let (_, text) = readme.split_once("<!-- walk-through -->").unwrap();
    let (text, _) = text.split_once("<!-- end of walk-through -->").unwrap();
    let blocks: Vec<_> = text.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 8, "the blocks were found");
    // Only the address and the folder differ from a reader's.
    let script = blocks.concat().replace("http://127.0.0.1:8080", &house.gateway);
    let folder = crate::house::folder();
    std::os::unix::fs::symlink(house.data.path(), folder.path().join(".amphi")).unwrap();
    std::os::unix::fs::symlink(house.media.home(), house.data.path().join("media")).unwrap();
    let script = format!("set -euo pipefail; cd {}\n{script}", folder.path().display());

    let (status, output) = Program::spawn("timeout", &["90", "bash", "-c", &script], &[]).wait();

    assert!(status.success(), "{output}");
    let of_streams =
        ["\"token\"", "\"status\":\"live\"", "codec_name=h264", "codec_name=aac", "\"endTime\":\"", ".flv"];
    let of_chat = ["\"type\":\"new_message\"", "\"type\":\"message\"", "\"total\":1"];
    for part in of_streams.into_iter().chain(of_chat) {
        assert!(output.contains(part), "{part} in {output}");
    }
}
