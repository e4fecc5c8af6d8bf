// Scenarios for the Java client of CMQ over HTTP: Http ADDRESS ID SECRET SCENARIO. One that ends without an exception
// has gone well.

import com.qcloud.cmq.Account;
import com.qcloud.cmq.CMQServerException;
import com.qcloud.cmq.Message;
import com.qcloud.cmq.Queue;
import com.qcloud.cmq.QueueMeta;
import com.qcloud.cmq.Subscription;
import com.qcloud.cmq.SubscriptionMeta;
import com.qcloud.cmq.Topic;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.UUID;
import java.util.Vector;

public class Http {
    static final String TEXT = "hello \u4e16\u754c +%&=_@ \"quoted\" \\ \u2028 \ud83d\ude00 end";

    interface Call {
        void run() throws Exception;
    }

    static void refused(String what, Call call) throws Exception {
        try {
            call.run();
        } catch (CMQServerException error) {
            check(error.toString().contains(what), error.toString());
            return;
        }
        throw new AssertionError("not refused with " + what);
    }

    static void check(boolean so, Object told) {
        if (!so) throw new AssertionError(String.valueOf(told));
    }

    static String name() {
        return "ja" + UUID.randomUUID().toString().replace("-", "").substring(0, 12);
    }

    static Account account(String[] given, String method, String sign) {
        Account account = new Account(given[1], given[2], given[0], "/v2/index.php", method);
        account.setSignMethod(sign);
        return account;
    }

    static void queues(Account account) throws Exception {
        String name = name();
        QueueMeta meta = new QueueMeta();
        meta.visibilityTimeout = 7;
        meta.pollingWaitSeconds = 3;
        meta.maxMsgSize = 2048;
        meta.rewindSeconds = 60;
        account.createQueue(name, meta);
        refused("4460", () -> account.createQueue(name, meta));
        QueueMeta told = account.getQueue(name).getQueueAttributes();
        check(told.visibilityTimeout == 7 && told.pollingWaitSeconds == 3 && told.maxMsgSize == 2048, told.maxMsgSize);
        check(told.rewindSeconds == 60 && told.createTime > 0, told.rewindSeconds);
        meta.visibilityTimeout = 9;
        account.getQueue(name).setQueueAttributes(meta);
        check(account.getQueue(name).getQueueAttributes().visibilityTimeout == 9, "unchanged");
        List<String> names = new ArrayList<>();
        check(account.listQueue(name, 0, 20, names) == 1 && names.contains(name), names);
        meta.visibilityTimeout = 43201;
        refused("10350", () -> account.createQueue(name(), meta));
        account.deleteQueue(name);
        refused("(10100)", () -> account.getQueue(name).getQueueAttributes());
    }

    static Queue made(Account account, int visibility, int rewind) throws Exception {
        String name = name();
        QueueMeta meta = new QueueMeta();
        meta.visibilityTimeout = visibility;
        meta.rewindSeconds = rewind;
        account.createQueue(name, meta);
        return account.getQueue(name);
    }

    static void messages(Account account) throws Exception {
        Queue queue = made(account, 30, 3600);
        int began = (int) (System.currentTimeMillis() / 1000);
        refused("(10200)no message", () -> queue.receiveMessage(0));
        String id = queue.sendMessage(TEXT);
        Message got = queue.receiveMessage(3);
        check(got.msgBody.equals(TEXT) && got.msgId.equals(id), got.msgBody);
        check(got.dequeueCount == 1 && got.nextVisibleTime == got.firstDequeueTime + 30, got.dequeueCount);
        queue.deleteMessage(got.receiptHandle);
        String late = got.receiptHandle;
        refused("(10260)", () -> queue.deleteMessage(late));
        check(queue.send("sent").getMsgId() != null, "no id");
        check(queue.receiveMessage().msgBody.equals("sent"), "another");
        check(queue.batchSendMessage(Arrays.asList("a", "b", "c")).size() == 3, "not three");
        check(queue.batchSend(Arrays.asList("d", "e")).size() == 2, "not two");
        List<String> handles = new ArrayList<>();
        Set<String> bodies = new HashSet<>();
        while (bodies.size() < 5)
            for (Message one : queue.batchReceiveMessage(16, 3)) {
                bodies.add(one.msgBody);
                handles.add(one.receiptHandle);
            }
        check(bodies.equals(new HashSet<>(Arrays.asList("a", "b", "c", "d", "e"))), bodies);
        queue.batchDeleteMessage(handles);
        refused("6020", () -> queue.batchDeleteMessage(handles));
        queue.rewindQueue(began - 1);
        check(queue.batchReceiveMessage(16, 3).size() >= 1, "nothing came again");
        refused("4440", () -> account.getQueue(name()).sendMessage("x"));
        refusals(account);
    }

    static void refusals(Account account) throws Exception {
        QueueMeta small = new QueueMeta();
        small.maxMsgSize = 1024;
        String called = name();
        account.createQueue(called, small);
        Queue queue = account.getQueue(called);
        refused("(10230)", () -> queue.sendMessage(new String(new char[1025]).replace('\0', 'x')));
        refused("(10470)", () -> queue.deleteMessage("no-number"));
        refused("(10260)", () -> queue.deleteMessage("12345"));
        refused("6050", () -> queue.rewindQueue((int) (System.currentTimeMillis() / 1000)));
        List<String> some = new ArrayList<>();
        queue.sendMessage("x");
        some.add(queue.receiveMessage(3).receiptHandle);
        some.add("12345");
        refused("6010", () -> queue.batchDeleteMessage(some));
        check(queue.send("later", 1000).getMsgId() != null, "no id");
        check(queue.batchSendMessage(Arrays.asList("a", "b"), 1000).size() == 2, "not two");
        check(queue.batchSend(Arrays.asList("a"), 1000).size() == 1, "not one");
        check(queue.getQueueAttributes().delayMsgNum == 4, queue.getQueueAttributes().delayMsgNum);
        Queue gone = account.getQueue(name());
        for (Call call : new Call[] {
            () -> gone.receiveMessage(0), () -> gone.batchReceiveMessage(16, 0), () -> gone.deleteMessage("1"),
            () -> gone.batchDeleteMessage(Arrays.asList("1")), () -> gone.batchSendMessage(Arrays.asList("x")),
            () -> gone.rewindQueue(1), () -> gone.setQueueAttributes(new QueueMeta()),
            () -> account.deleteQueue(name()),
        }) refused("(10100)", call);
        Topic nowhere = account.getTopic(name());
        for (Call call : new Call[] {
            () -> nowhere.publishMessage("x"), () -> nowhere.batchPublishMessage(Arrays.asList("x")),
            () -> nowhere.setTopicAttributes(2048), () -> account.deleteTopic(name()),
            () -> account.createSubscribe(name(), name(), name(), "queue"), () -> account.deleteSubscribe(name(), name()),
        }) refused("(10600)", call);
    }

    static void redelivery(Account account) throws Exception {
        Queue queue = made(account, 1, 0);
        String id = queue.sendMessage("again", 1);
        refused("7000", () -> queue.receiveMessage(0));
        Message first = queue.receiveMessage(20);
        Message second = queue.receiveMessage(20);
        check(second.msgId.equals(first.msgId) && first.msgId.equals(id), second.msgId);
        check(second.dequeueCount == 2 && second.firstDequeueTime == first.firstDequeueTime, second.dequeueCount);
        refused("4430", () -> queue.deleteMessage(first.receiptHandle));
    }

    static void signatures(String[] given) throws Exception {
        String[] other = given.clone();
        other[2] = "x" + given[2];
        refused("(10030)", () -> account(other, "POST", "sha1").listQueue("", 0, 20, new ArrayList<>()));
        refused("(10030)", () -> account(other, "GET", "sha256").listTopic("", new ArrayList<>(), 0, 20));
        String[] nobody = given.clone();
        nobody[1] = "AKIDnobody";
        refused("(10270)", () -> account(nobody, "POST", "sha256").listQueue("", 0, 20, new ArrayList<>()));
    }

    // What find looks for, in a server that was killed meanwhile.
    static void leave(Account account) throws Exception {
        account.createQueue("left-java", new QueueMeta());
        Queue queue = account.getQueue("left-java");
        queue.batchSendMessage(Arrays.asList("a", "b"));
        queue.deleteMessage(queue.receiveMessage(3).receiptHandle);
    }

    static void find(Account account) throws Exception {
        Queue queue = account.getQueue("left-java");
        check(queue.receiveMessage(3).msgBody.equals("b"), "another");
        refused("7000", () -> queue.receiveMessage(0));
    }

    static void topics(Account account) throws Exception {
        String topic = name(), one = name(), two = name();
        Queue queue = made(account, 30, 0), all = made(account, 30, 0);
        List<String> names = new ArrayList<>();
        account.listQueue("", 0, 50, names);
        account.createTopic(topic, 65536);
        refused("4460", () -> account.createTopic(topic, 65536));
        String first = name(), second = name();
        QueueMeta meta = new QueueMeta();
        account.createQueue(first, meta);
        account.createQueue(second, meta);
        account.createSubscribe(topic, one, first, "queue", Arrays.asList("red"), null, "BACKOFF_RETRY", "JSON");
        account.createSubscribe(topic, two, second, "queue");
        refused("4490", () -> account.createSubscribe(topic, one, first, "queue"));
        Topic at = account.getTopic(topic);
        check(at.publishMessage(TEXT, Arrays.asList("red"), null) != null, "no id");
        at.publishMessage("blue", Arrays.asList("blue"), null);
        check(account.getQueue(first).receiveMessage(3).msgBody.equals(TEXT), "another");
        refused("7000", () -> account.getQueue(first).receiveMessage(0));
        Vector<String> ids = at.batchPublishMessage(Arrays.asList("x", "y"), Arrays.asList("red"), null);
        check(ids.size() == 2, ids);
        check(account.getQueue(second).batchReceiveMessage(16, 3).size() == 4, "not four");
        Subscription subscription = account.getSubscription(topic, one);
        SubscriptionMeta told = subscription.getSubscriptionAttributes();
        check(told.FilterTag.contains("red"), told.FilterTag);
        told.FilterTag = new Vector<>(Arrays.asList("green"));
        told.NotifyContentFormat = "SIMPLIFIED";
        subscription.SetSubscriptionAttributes(told);
        check(subscription.getSubscriptionAttributes().FilterTag.contains("green"), "unchanged");
        subscription.ClearFilterTags();
        at.publishMessage("any");
        List<String> listed = new ArrayList<>();
        check(at.ListSubscription(0, 20, "", listed) == 2, listed);
        at.setTopicAttributes(2048);
        check(at.getTopicAttributes().maxMsgSize == 2048, "unchanged");
        check(account.listTopic(topic, listed, 0, 20) == 1, listed);
        refused("10540", () -> account.deleteTopic(topic));
        account.deleteSubscribe(topic, one);
        account.deleteSubscribe(topic, two);
        account.deleteTopic(topic);
        refused("10600", () -> at.getTopicAttributes());
    }

    static void routing(Account account) throws Exception {
        String topic = name(), queue = name();
        account.createQueue(queue, new QueueMeta());
        account.createTopic(topic, 65536, 2);
        account.createSubscribe(topic, name(), queue, "queue", null, Arrays.asList("1.#.0", "*.b"), "BACKOFF_RETRY",
                "SIMPLIFIED");
        Topic at = account.getTopic(topic);
        for (String key : Arrays.asList("1.0", "1.2.0", "a.b", "b")) at.publishMessage(key, key);
        check(at.batchPublishMessage(Arrays.asList("b1", "b2"), "c.b").size() == 2, "not two");
        refused("10700", () -> at.publishMessage("no key"));
        refused("10691", () -> at.publishMessage("dots", "................"));
        Set<String> found = new HashSet<>();
        while (found.size() < 5)
            for (Message got : account.getQueue(queue).batchReceiveMessage(16, 3)) found.add(got.msgBody);
        check(found.equals(new HashSet<>(Arrays.asList("1.0", "1.2.0", "a.b", "b1", "b2"))), found);
    }

    public static void main(String[] given) throws Exception {
        Account plain = account(given, "POST", "sha1");
        switch (given[3]) {
            case "queues": queues(plain); break;
            case "messages": messages(plain); break;
            case "messages_by_get": messages(account(given, "GET", "sha256")); break;
            case "redelivery": redelivery(plain); break;
            case "signatures": signatures(given); break;
            case "leave": leave(plain); break;
            case "find": find(plain); break;
            case "topics": topics(plain); break;
            case "routing": routing(plain); break;
            default: throw new AssertionError(given[3]);
        }
        System.exit(0);
    }
}
