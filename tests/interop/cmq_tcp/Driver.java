// Does with the CMQ TCP client what each line of its input says, and answers each with one line.
//
// A line: a number, a command, its arguments, separated by tabs; texts are in base64. An answer: the number, then
// "ok" and values, or "error", the class of the exception, its code and its text. Commands with "async" in front
// use the client's callbacks. The line "ready" comes first.

import com.qcloud.cmq.client.cloudapi.CloudApiManager;
import com.qcloud.cmq.client.cloudapi.QueueMeta;
import com.qcloud.cmq.client.cloudapi.SubscribeConfig;
import com.qcloud.cmq.client.cloudapi.entity.CmqQueue;
import com.qcloud.cmq.client.common.ClientConfig;
import com.qcloud.cmq.client.common.TransactionStatus;
import com.qcloud.cmq.client.consumer.*;
import com.qcloud.cmq.client.exception.MQClientException;
import com.qcloud.cmq.client.exception.MQServerException;
import com.qcloud.cmq.client.producer.*;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

public class Driver {
    static TransactionProducer producer;
    static Consumer consumer;
    static CloudApiManager manager;
    static final ConcurrentHashMap<String, ConcurrentLinkedQueue<Message>> heard = new ConcurrentHashMap<>();
    static final ConcurrentLinkedQueue<String> asked = new ConcurrentLinkedQueue<>();

    public static void main(String[] given) throws Exception {
        String address = given[0], id = given[1], key = given[2], method = given[3];
        producer = new TransactionProducer();
        consumer = new Consumer();
        for (ClientConfig config : Arrays.asList(producer, consumer)) {
            config.setNameServerAddress(address);
            config.setSecretId(id);
            config.setSecretKey(key);
            config.setSignMethod(method);
            config.setRequestTimeoutMS(10000);
        }
        consumer.setPollingWaitSeconds(3);
        consumer.setBatchPullNumber(16);
        producer.start();
        consumer.start();
        manager = new CloudApiManager();
        manager.setCloudApiAddress(address);
        manager.setSecretId(id);
        manager.setSecretKey(key);
        manager.start();
        ExecutorService threads = Executors.newCachedThreadPool();
        say("ready");
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        String line;
        while ((line = input.readLine()) != null) {
            String[] words = line.split("\t", -1);
            threads.submit(() -> answer(words));
        }
        producer.shutdown();
        consumer.shutdown();
        System.exit(0);
    }

    static synchronized void say(Object... values) {
        StringBuilder out = new StringBuilder();
        for (Object value : values) out.append(out.length() == 0 ? "" : "\t").append(value);
        System.out.println(out);
        System.out.flush();
    }

    static void answer(String[] words) {
        try {
            obey(words[0], words[1], Arrays.copyOfRange(words, 2, words.length));
        } catch (Throwable error) {
            fail(words[0], error);
        }
    }

    static void fail(String number, Throwable error) {
        int code = 0;
        if (error instanceof MQServerException) code = ((MQServerException) error).getResponseCode();
        if (error instanceof MQClientException) code = ((MQClientException) error).getResponseCode();
        say(number, "error", error.getClass().getSimpleName(), code, packed(String.valueOf(error.getMessage())));
    }

    static String text(String packed) {
        return new String(Base64.getDecoder().decode(packed), StandardCharsets.UTF_8);
    }

    static String packed(String text) {
        return Base64.getEncoder().encodeToString((text == null ? "" : text).getBytes(StandardCharsets.UTF_8));
    }

    static List<String> texts(String[] words, int from) {
        List<String> found = new ArrayList<>();
        for (int at = from; at < words.length; at++) found.add(text(words[at]));
        return found;
    }

    static List<Long> numbers(String[] words, int from) {
        List<Long> found = new ArrayList<>();
        for (int at = from; at < words.length; at++) found.add(Long.parseLong(words[at]));
        return found;
    }

    static String ids(List<Long> ids) {
        StringBuilder out = new StringBuilder();
        if (ids != null) for (Long id : ids) out.append(out.length() == 0 ? "" : ",").append(id);
        return out.toString();
    }

    static String shown(Message one) {
        // For "no message" the client makes an empty one.
        return one == null || one.getMessageId() == 0 ? "" : one.getMessageId() + "," + one.getReceiptHandle() + "," + packed(one.getData());
    }

    static String shown(List<Message> many) {
        StringBuilder out = new StringBuilder();
        if (many != null) for (Message one : many) out.append(out.length() == 0 ? "" : ";").append(shown(one));
        return out.toString();
    }

    static String failed(List<ReceiptHandleErrorInfo> many) {
        StringBuilder out = new StringBuilder();
        if (many != null) for (ReceiptHandleErrorInfo one : many)
            out.append(out.length() == 0 ? "" : ",").append(one.getReceiptHandle());
        return out.toString();
    }

    // code, text, then what there is.
    static void sent(String n, SendResult r) { say(n, "ok", r.getReturnCode(), packed(r.getErrorMsg()), r.getMsgId()); }
    static void sent(String n, BatchSendResult r) {
        say(n, "ok", r.getReturnCode(), packed(r.getErrorMessage()), ids(r.getMsgIdList()));
    }
    static void sent(String n, PublishResult r) { say(n, "ok", r.getReturnCode(), packed(r.getErrorMsg()), r.getMsgId()); }
    static void sent(String n, BatchPublishResult r) {
        say(n, "ok", r.getReturnCode(), packed(r.getErrorMessage()), ids(r.getMsgIdList()));
    }
    static void got(String n, ReceiveResult r) {
        say(n, "ok", r.getReturnCode(), packed(r.getErrorMessage()), shown(r.getMessage()));
    }
    static void got(String n, BatchReceiveResult r) {
        say(n, "ok", r.getReturnCode(), packed(r.getErrorMessage()), shown(r.getMessageList()));
    }
    static void gone(String n, DeleteResult r) { say(n, "ok", r.getReturnCode(), packed(r.getErrorMessage()), ""); }
    static void gone(String n, BatchDeleteResult r) {
        say(n, "ok", r.getReturnCode(), packed(r.getErrorMessage()), failed(r.getErrorList()));
    }

    static void obey(String n, String command, String[] w) throws Exception {
        switch (command) {
            case "send": sent(n, producer.send(w[0], text(w[1]), Integer.parseInt(w[2]))); break;
            case "async send":
                producer.send(w[0], text(w[1]), Integer.parseInt(w[2]), new SendCallback() {
                    public void onSuccess(SendResult r) { sent(n, r); }
                    public void onException(Throwable error) { fail(n, error); }
                });
                break;
            case "batch send": sent(n, producer.batchSend(w[0], texts(w, 2), Integer.parseInt(w[1]))); break;
            case "async batch send":
                producer.batchSend(w[0], texts(w, 2), Integer.parseInt(w[1]), new BatchSendCallback() {
                    public void onSuccess(BatchSendResult r) { sent(n, r); }
                    public void onException(Throwable error) { fail(n, error); }
                });
                break;
            case "receive": got(n, consumer.receiveMsg(w[0], Integer.parseInt(w[1]))); break;
            case "async receive":
                consumer.receiveMsg(w[0], Integer.parseInt(w[1]), new ReceiveCallback() {
                    public void onSuccess(ReceiveResult r) { got(n, r); }
                    public void onException(Throwable error) { fail(n, error); }
                });
                break;
            case "batch receive":
                got(n, consumer.batchReceiveMsg(w[0], Integer.parseInt(w[1]), Integer.parseInt(w[2])));
                break;
            case "async batch receive":
                consumer.batchReceiveMsg(w[0], Integer.parseInt(w[1]), Integer.parseInt(w[2]), new BatchReceiveCallback() {
                    public void onSuccess(BatchReceiveResult r) { got(n, r); }
                    public void onException(Throwable error) { fail(n, error); }
                });
                break;
            case "delete": gone(n, consumer.deleteMsg(w[0], Long.parseLong(w[1]))); break;
            case "async delete":
                consumer.deleteMsg(w[0], Long.parseLong(w[1]), new DeleteCallback() {
                    public void onSuccess(DeleteResult r) { gone(n, r); }
                    public void onException(Throwable error) { fail(n, error); }
                });
                break;
            case "batch delete": gone(n, consumer.batchDeleteMsg(w[0], numbers(w, 1))); break;
            case "async batch delete":
                consumer.batchDeleteMsg(w[0], numbers(w, 1), new BatchDeleteCallback() {
                    public void onSuccess(BatchDeleteResult r) { gone(n, r); }
                    public void onException(Throwable error) { fail(n, error); }
                });
                break;
            default: more(n, command, w);
        }
    }

    static void more(String n, String command, String[] w) throws Exception {
        switch (command) {
            case "publish by key": sent(n, producer.publish(w[0], text(w[1]), w[2])); break;
            case "publish by tags": sent(n, producer.publish(w[0], text(w[1]), texts(w, 2))); break;
            case "async publish by key": producer.publish(w[0], text(w[1]), w[2], published(n)); break;
            case "async publish by tags": producer.publish(w[0], text(w[1]), texts(w, 2), published(n)); break;
            case "batch publish by key": sent(n, producer.batchPublish(w[0], texts(w, 2), w[1])); break;
            case "batch publish by tag":
                sent(n, producer.batchPublish(w[0], texts(w, 2), Arrays.asList(w[1])));
                break;
            case "async batch publish by tag":
                producer.batchPublish(w[0], texts(w, 2), Arrays.asList(w[1]), batchPublished(n));
                break;
            case "async batch publish by key":
                producer.batchPublish(w[0], texts(w, 2), w[1], batchPublished(n));
                break;
            case "subscribe":
                heard.putIfAbsent(w[0], new ConcurrentLinkedQueue<>());
                consumer.subscribe(w[0], Driver::listen);
                say(n, "ok", 0, "", "");
                break;
            case "unsubscribe": consumer.unSubscribe(w[0]); say(n, "ok", 0, "", ""); break;
            case "heard": say(n, "ok", 0, "", shown(new ArrayList<>(heard.get(w[0])))); break;
            case "transaction": transaction(n, w); break;
            case "transactions": transactions(n, w); break;
            case "asked": say(n, "ok", 0, "", String.join(",", asked)); break;
            default: manage(n, command, w);
        }
    }

    static BatchPublishCallback batchPublished(String n) {
        return new BatchPublishCallback() {
            public void onSuccess(BatchPublishResult r) { sent(n, r); }
            public void onException(Throwable error) { fail(n, error); }
        };
    }

    static PublishCallback published(String n) {
        return new PublishCallback() {
            public void onSuccess(PublishResult r) { sent(n, r); }
            public void onException(Throwable error) { fail(n, error); }
        };
    }

    static List<Long> listen(String queue, List<Message> messages) {
        List<Long> done = new ArrayList<>();
        for (Message one : messages) {
            heard.get(queue).add(one);
            done.add(one.getReceiptHandle());
        }
        return done;
    }

    // queue, body, what the local work comes to, what the checker says, the first check
    static void transaction(String n, String[] w) throws Exception {
        producer.setFirstCheckInterval(Integer.parseInt(w[4]));
        checker(w[0], w[3]);
        TransactionStatus local = TransactionStatus.valueOf(w[2]);
        TransactionSendResult r = producer.sendTransactionMessage(w[0], text(w[1]), (body, argument) -> local, null);
        say(n, "ok", r.getReturnCode(), packed(r.getErrorMsg()), r.getMsgId(), r.getTransactionStatus());
    }

    // queue, what the checker says, the first check, then pairs: body, what its local work comes to
    static void transactions(String n, String[] w) throws Exception {
        producer.setFirstCheckInterval(Integer.parseInt(w[2]));
        checker(w[0], w[1]);
        List<String> bodies = new ArrayList<>();
        List<TransactionExecutor> work = new ArrayList<>();
        List<Object> arguments = new ArrayList<>();
        for (int at = 3; at < w.length; at += 2) {
            TransactionStatus local = TransactionStatus.valueOf(w[at + 1]);
            bodies.add(text(w[at]));
            work.add((body, argument) -> local);
            arguments.add("");
        }
        TransactionBatchSendResult r = producer.batchSendTransactionMessages(w[0], bodies, work, arguments);
        say(n, "ok", r.getReturnCode(), packed(r.getErrorMessage()), ids(r.getMsgIdList()));
    }

    static void checker(String queue, String verdict) {
        TransactionProducer.setChecker(queue, message -> {
            asked.add(String.valueOf(message.getMessageId()));
            return TransactionStatus.valueOf(verdict.isEmpty() ? "UN_KNOW" : verdict);
        });
    }

    static void manage(String n, String command, String[] w) throws Exception {
        switch (command) {
            case "create queue": {
                QueueMeta meta = new QueueMeta();
                meta.setVisibilityTimeout(Integer.parseInt(w[1]));
                meta.setPollingWaitSeconds(Integer.parseInt(w[2]));
                meta.setMsgRetentionSeconds(3600);
                meta.setMaxMsgSize(65536);
                meta.setRewindSeconds(3600);
                say(n, "ok", 0, "", manager.createQueue(w[0], meta));
                break;
            }
            case "delete queue": manager.deleteQueue(w[0]); say(n, "ok", 0, "", ""); break;
            case "count queues": say(n, "ok", 0, "", manager.countQueue(w[0], 0, 50)); break;
            case "list queues": {
                StringBuilder out = new StringBuilder();
                for (CmqQueue one : manager.describeQueue(w[0], 0, 50))
                    out.append(out.length() == 0 ? "" : ",").append(one.getQueueName());
                say(n, "ok", 0, "", out);
                break;
            }
            case "attributes": {
                QueueMeta meta = manager.describeQueueAttributes(w[0]);
                say(n, "ok", 0, "", meta.getVisibilityTimeout() + "," + meta.getPollingWaitSeconds() + ","
                    + meta.getMaxMsgSize() + "," + meta.getRewindSeconds() + "," + meta.getActiveMsgNum() + ","
                    + meta.getInactiveMsgNum());
                break;
            }
            case "create subscription": {
                SubscribeConfig config = new SubscribeConfig();
                config.setTopicName(w[0]);
                config.setSubscriptionName(w[1]);
                config.setProtocol("queue");
                config.setEndpoint(w[2]);
                if (!w[3].isEmpty()) config.setFilterTag(Arrays.asList(w[3].split(",")));
                if (!w[4].isEmpty()) config.setBindingKey(Arrays.asList(w[4].split(",")));
                config.setNotifyContentFormat("SIMPLIFIED");
                say(n, "ok", 0, "", manager.createSubscribe(config));
                break;
            }
            case "delete subscription": manager.deleteSubscribe(w[0], w[1]); say(n, "ok", 0, "", ""); break;
            default: throw new IllegalArgumentException(command);
        }
    }
}
